package client_test

import (
	"context"
	"testing"
)

// contextWithStop is a context that ends when it is told to, as by Ctrl+C.
func contextWithStop(t *testing.T) (context.Context, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
