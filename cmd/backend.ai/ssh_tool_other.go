//go:build !unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// replaceBy runs another program to its end and passes its exit code on.
func replaceBy(ctx context.Context, program string, argv, environ []string) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, argv[1:]...) // Ctrl+C is for the program
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exitError{code: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}
