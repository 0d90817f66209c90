// Command backend.ai is the platform's one program: "backend.ai server" is the
// platform, every other command is its client.
package main

import (
	"context"
	"io"
	"os"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run executes one command line and returns its exit code.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	ctx, stop := untilSignal(context.Background())
	defer stop()
	e := newEnv(in, out, errs, os.Getenv)
	defer e.close()
	root := newRootCommand(e)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	return e.report(ctx, cmd, err)
}
