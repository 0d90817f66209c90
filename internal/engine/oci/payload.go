package oci

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"backendai"
)

//go:embed payload/*
var payload embed.FS

// embeddedRunner opens the runner that the build put beside this package.
func embeddedRunner() (io.ReadCloser, error) {
	name := "runner-linux-" + runtime.GOARCH
	f, err := payload.Open("payload/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, backendai.Errorf(backendai.CodeInternal, "this program was built without the runner %s", name).
			WithHint("build it with make, which embeds the runner")
	}
	if err != nil {
		return nil, fmt.Errorf("open embedded runner: %w", err)
	}
	return f, nil
}
