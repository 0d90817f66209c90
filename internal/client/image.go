package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"backendai"
)

// Image is an image on the server's machine. The calls for images in this file
// are our server's own; others answer them with CodeURLNotFound.
type Image struct {
	Ref          string            `json:"ref"`
	Digest       string            `json:"digest"`
	Architecture string            `json:"architecture"`
	Size         int64             `json:"size"`
	Labels       map[string]string `json:"labels,omitempty"`
	Aliases      []string          `json:"aliases"`
	CreatedAt    time.Time         `json:"created_at"`
}

// ImageStep is how far the work on an image has come: Progress, or one line of
// what a build prints.
type ImageStep struct {
	Progress *backendai.PullProgress
	Line     string
}

// Images lists the images on the server's machine.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	var answer struct {
		Images []Image `json:"images"`
	}
	err := c.read(ctx, call{method: http.MethodGet, path: []string{"image"}}, &answer)
	return answer.Images, ours(err)
}

// RemoveImage takes an image off the server's machine.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	return ours(c.read(ctx, call{method: http.MethodDelete, path: []string{"image"}, query: url.Values{"ref": {ref}}}, nil))
}

// PullImage downloads an image to the server's machine.
func (c *Client) PullImage(ctx context.Context, ref, architecture string, step func(ImageStep)) ([]Image, error) {
	body := object{"ref": ref}
	body.set("architecture", architecture, architecture != "")
	return c.imageWork(ctx, call{method: http.MethodPost, path: []string{"image", "pull"}, json: body}, step)
}

// BuildImage makes an image on the server's machine from a recipe there.
func (c *Client) BuildImage(ctx context.Context, recipe string, step func(ImageStep)) ([]Image, error) {
	return c.imageWork(ctx, call{method: http.MethodPost, path: []string{"image", "build"}, json: object{"recipe": recipe}}, step)
}

// ImportImage sends an archive: an OCI layout as tar, or the output of
// "docker save". An empty name keeps those of the archive.
func (c *Client) ImportImage(ctx context.Context, archive io.Reader, name string, step func(ImageStep)) ([]Image, error) {
	query := url.Values{}
	if name != "" {
		query.Set("name", name)
	}
	return c.imageWork(ctx, call{method: http.MethodPost, path: []string{"image", "import"}, query: query, body: archive}, step)
}

// maxImageLine bounds one line of an answer, in bytes.
const maxImageLine = 1 << 20

// imageWork reads the lines of JSON of a call that takes long.
func (c *Client) imageWork(ctx context.Context, k call, step func(ImageStep)) ([]Image, error) {
	resp, err := c.do(ctx, k)
	if err != nil {
		return nil, ours(err)
	}
	defer resp.Body.Close()
	var images []Image
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxImageLine)
	for lines.Scan() {
		var line struct {
			Progress *backendai.PullProgress `json:"progress"`
			Line     *string                 `json:"line"`
			Image    *Image                  `json:"image"`
			Error    *problem                `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, backendai.Errorf(backendai.CodeInternal, "the answer of %s is not what the protocol says: %w", resp.Request.URL.Host, err)
		}
		switch {
		case line.Error != nil:
			return nil, line.Error.error()
		case line.Image != nil:
			images = append(images, *line.Image)
		case line.Progress != nil:
			step(ImageStep{Progress: line.Progress})
		case line.Line != nil:
			step(ImageStep{Line: *line.Line})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, c.unreachable(ctx, resp.Request.URL, err)
	}
	if len(images) == 0 {
		return nil, c.unreachable(ctx, resp.Request.URL, io.ErrUnexpectedEOF)
	}
	return images, nil
}

// ours explains a refusal by a server that does not have these calls.
func ours(err error) error {
	if e, ok := errors.AsType[*backendai.Error](err); ok && e.Code == backendai.CodeURLNotFound {
		return e.WithHint("this server is of another kind: its administrators add images with 'backend.ai admin image rescan'")
	}
	return err
}
