package client

import (
	"context"
	"errors"
	"net/http"
	"time"

	"backendai"
)

// HostKeys are how the SSH server of a session proves itself.
type HostKeys struct {
	ID   string   `json:"id"` // of the session
	Name string   `json:"name"`
	Keys []string `json:"host_keys"` // in the form of authorized_keys
}

// HostKeys asks for the host keys of a session. Only our server can tell them.
func (c *Client) HostKeys(ctx context.Context, ref string) (HostKeys, error) {
	var keys HostKeys
	err := c.read(ctx, call{method: http.MethodGet, path: []string{"session", ref, "ssh-host-keys"}}, &keys)
	if e, ok := errors.AsType[*backendai.Error](err); ok && e.Code == backendai.CodeURLNotFound {
		err = backendai.Errorf(backendai.CodeNotImplemented, "this server does not tell the host keys of its sessions").
			WithHint("'backend.ai app -b 9922 %s sshd' leads to the session's SSH server, whose key you then check yourself", ref)
	}
	return keys, err
}

// Terminal is an open web terminal of a session.
type Terminal struct {
	Name    string    `json:"name"`
	Command string    `json:"command"`
	PID     int       `json:"pid"`
	Viewers int       `json:"viewers"` // browser windows that show it
	Rows    int       `json:"rows"`
	Cols    int       `json:"cols"`
	Started time.Time `json:"started"`
}

// Terminals lists the open web terminals of a session.
func (c *Client) Terminals(ctx context.Context, ref string) ([]Terminal, error) {
	var answer struct {
		Terminals []Terminal `json:"terminals"`
	}
	err := c.read(ctx, call{method: http.MethodGet, path: []string{"session", ref, "terminals"}}, &answer)
	return answer.Terminals, err
}

// EndTerminal ends a web terminal and what runs in it.
func (c *Client) EndTerminal(ctx context.Context, ref, name string) error {
	return c.read(ctx, call{method: http.MethodDelete, path: []string{"session", ref, "terminals", name}}, nil)
}
