package oci

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"backendai"
)

//go:embed payload/*
var payload embed.FS

// embeddedRunner returns the runner that the build put beside this package.
func embeddedRunner() ([]byte, error) {
	name := "runner-linux-" + runtime.GOARCH
	b, err := payload.ReadFile("payload/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, backendai.Errorf(backendai.CodeInternal, "this program was built without the runner %s", name).
			WithHint("build it with make, which embeds the runner")
	}
	if err != nil {
		return nil, fmt.Errorf("read embedded runner: %w", err)
	}
	return b, nil
}
