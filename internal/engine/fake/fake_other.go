//go:build !linux

package fake

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"backendai/internal/engine"
)

var errLinux = errors.New("the fake engine runs on Linux only")

// Engine is of Linux only: New gives an error instead of one.
type Engine struct{ options Options }

// New tells that there is no such engine here.
func New(Options) (*Engine, error) { return nil, errLinux }

// Close does nothing.
func (e *Engine) Close() error { return nil }

// Create implements engine.Engine by an error, like the methods below.
func (e *Engine) Create(context.Context, engine.Spec) error { return errLinux }

// Stop implements engine.Engine.
func (e *Engine) Stop(context.Context, string, time.Duration) error { return errLinux }

// Remove implements engine.Engine.
func (e *Engine) Remove(context.Context, string, time.Duration) error { return errLinux }

// List implements engine.Engine.
func (e *Engine) List(context.Context) ([]engine.Container, error) { return nil, errLinux }

// Watch implements engine.Engine.
func (e *Engine) Watch(context.Context) (<-chan engine.Exit, error) { return nil, errLinux }

// Dial implements engine.Engine.
func (e *Engine) Dial(context.Context, string) (net.Conn, error) { return nil, errLinux }

// DialPort implements engine.Engine.
func (e *Engine) DialPort(context.Context, string, int) (net.Conn, error) { return nil, errLinux }

// Logs implements engine.Engine.
func (e *Engine) Logs(context.Context, string, int64) (io.ReadCloser, error) { return nil, errLinux }
