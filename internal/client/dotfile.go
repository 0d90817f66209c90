package client

import (
	"context"
	"net/http"
)

// Dotfile is a file that every session of a keypair has in its home.
type Dotfile struct {
	Path       string `json:"path"`
	Permission string `json:"permission"`
	Data       string `json:"data"`
}

// dotfileCall is a call about the dotfiles of the owner's access key, which is
// the caller's own when it is empty.
func dotfileCall(method, owner string, body object) call {
	if owner != "" {
		body["owner_access_key"] = owner
	}
	k := call{method: method, path: []string{"user-config", "dotfiles"}, query: owned(owner)}
	if len(body) > 0 {
		k.json = body
	}
	return k
}

// Dotfiles lists the dotfiles.
func (c *Client) Dotfiles(ctx context.Context, owner string) ([]Dotfile, error) {
	var files []Dotfile
	return files, c.read(ctx, dotfileCall(http.MethodGet, owner, object{}), &files)
}

// Dotfile is the one of a path.
func (c *Client) Dotfile(ctx context.Context, owner, path string) (Dotfile, error) {
	var f struct {
		Dotfile

		Perm string `json:"perm"`
	}
	err := c.read(ctx, dotfileCall(http.MethodGet, owner, object{"path": path}), &f)
	if f.Perm != "" {
		f.Permission = f.Perm
	}
	return f.Dotfile, err
}

// CreateDotfile makes a new one.
func (c *Client) CreateDotfile(ctx context.Context, owner string, f Dotfile) error {
	return c.read(ctx, dotfileCall(http.MethodPost, owner, object{"path": f.Path, "permission": f.Permission, "data": f.Data}), nil)
}

// UpdateDotfile changes the one of its path.
func (c *Client) UpdateDotfile(ctx context.Context, owner string, f Dotfile) error {
	return c.read(ctx, dotfileCall(http.MethodPatch, owner, object{"path": f.Path, "permission": f.Permission, "data": f.Data}), nil)
}

// DeleteDotfile removes the one of a path.
func (c *Client) DeleteDotfile(ctx context.Context, owner, path string) error {
	return c.read(ctx, dotfileCall(http.MethodDelete, owner, object{"path": path}), nil)
}
