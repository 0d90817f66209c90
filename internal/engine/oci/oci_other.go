//go:build !linux

package oci

import (
	"context"
	"io"
	"net"
	"time"

	"backendai"
	"backendai/internal/engine"
)

// Engine exists on Linux only.
type Engine struct{}

func unsupported() error {
	return backendai.Errorf(backendai.CodeInternal, "sessions run on Linux only").
		WithHint("run the server on a Linux machine and use this one as its client")
}

// Isolate does nothing here.
func Isolate() error { return nil }

// New tells that sessions need Linux.
func New(context.Context, Options) (*Engine, error) { return nil, unsupported() }

// Close does nothing here.
func (*Engine) Close() error { return nil }

// Create tells that sessions need Linux.
func (*Engine) Create(context.Context, engine.Spec) error { return unsupported() }

// Stop tells that sessions need Linux.
func (*Engine) Stop(context.Context, string, time.Duration) error { return unsupported() }

// Remove tells that sessions need Linux.
func (*Engine) Remove(context.Context, string, time.Duration) error { return unsupported() }

// List tells that sessions need Linux.
func (*Engine) List(context.Context) ([]engine.Container, error) { return nil, unsupported() }

// Watch tells that sessions need Linux.
func (*Engine) Watch(context.Context) (<-chan engine.Exit, error) { return nil, unsupported() }

// Dial tells that sessions need Linux.
func (*Engine) Dial(context.Context, string) (net.Conn, error) { return nil, unsupported() }

// DialPort tells that sessions need Linux.
func (*Engine) DialPort(context.Context, string, int) (net.Conn, error) { return nil, unsupported() }

// Logs tells that sessions need Linux.
func (*Engine) Logs(context.Context, string, int64) (io.ReadCloser, error) {
	return nil, unsupported()
}

// Capacity tells that sessions need Linux.
func (*Engine) Capacity(context.Context) (backendai.Slots, error) { return nil, unsupported() }
