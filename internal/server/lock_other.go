//go:build !unix

package server

import (
	"os"

	"backendai"
)

func lockFolder(string) (*os.File, error) {
	return nil, backendai.Errorf(backendai.CodeNotImplemented, "the server does not run on this system").
		WithHint("run it on Linux; the client commands work here")
}
