package main

import (
	"io"
	"sync"
	"time"

	"backendai/internal/client"
	"backendai/internal/term"
	"backendai/internal/version"
)

// The forms of output.
const (
	outputConsole = "console"
	outputJSON    = "json"
)

// env is what commands work with: the streams, the environment, what the
// global options say, and a client that is made when it is first asked for.
type env struct {
	in     io.Reader
	out    io.Writer
	errs   io.Writer
	getenv func(string) string
	term   *term.Printer

	output  string // outputConsole or outputJSON
	skipTLS bool
	// patience is how long a command waits in silence before it tells what it waits for.
	patience time.Duration
	client   func() (*client.Client, error)

	made *client.Client
}

func newEnv(in io.Reader, out, errs io.Writer, getenv func(string) string) *env {
	e := &env{
		in: in, out: out, errs: errs, getenv: getenv,
		term: term.New(out, errs, getenv), output: outputConsole, patience: 150 * time.Millisecond,
	}
	e.client = sync.OnceValues(e.newClient)
	return e
}

// config is what the environment and the profile say, with the global options.
func (e *env) config() (client.Config, error) {
	path, err := client.ProfilePath(e.getenv)
	if err != nil {
		path = "" // without a home there is no profile
	}
	config, err := client.LoadConfig(e.getenv, path)
	if e.skipTLS {
		config.SkipTLSVerify = true
	}
	return config, err
}

func (e *env) newClient() (*client.Client, error) {
	config, err := e.config()
	if err != nil {
		return nil, err
	}
	state, err := client.StateDir(e.getenv)
	if err != nil {
		state = "" // without a home nothing is remembered
	}
	e.made, err = client.New(config, client.Options{UserAgent: userAgent(), StateDir: state})
	return e.made, err
}

func userAgent() string { return "Backend.AI Client for Go " + version.String() }

func (e *env) close() {
	if e.made != nil {
		e.made.Close()
	}
}

// done tells that something has been changed: a message, and for programs the
// result with the thing that was changed.
func (e *env) done(item any, format string, args ...any) error {
	if e.output == outputJSON {
		return e.term.JSON(mutation(item, format, args...))
	}
	e.term.Done(format, args...)
	return nil
}
