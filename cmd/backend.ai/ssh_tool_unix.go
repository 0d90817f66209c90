//go:build unix

package main

import (
	"context"
	"fmt"
	"syscall"
)

// replaceBy makes this process another program, whose end is then the end of
// this command: exit code, signals and all.
func replaceBy(_ context.Context, program string, argv, environ []string) error {
	if err := syscall.Exec(program, argv, environ); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}
