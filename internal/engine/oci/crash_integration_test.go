//go:build integration && linux

package oci

import (
	"context"
	"fmt"
	"os"
)

const childEnv = "BACKENDAI_TEST_CHILD" // state directory of an engine to be killed

// child is an engine in a process of its own: it makes one session, tells its
// id and waits for its end by kill -9.
func child() {
	e, err := New(context.Background(), options(os.Getenv(childEnv)))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	s := spec()
	if err := e.Create(context.Background(), s); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(s.ID)
	select {}
}
