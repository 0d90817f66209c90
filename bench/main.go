//go:build linux

// Command bench measures the whole product, as its users run it, against
// baselines in the same run, and prints one table.
//
//	make bench
//	go run ./bench -only start,tunnel -runs 10
//
// It starts bin/backend.ai as a server with a state directory of its own, makes
// an image from the distribution's packages, and uses it through the same
// commands and the same Go client as everybody else. It needs root and Debian.
//
// # How it measures
//
// Each thing is measured several times, in turn with its baseline: A, B, A, B.
// The table shows medians, in brackets from the 10th to the 90th percentile,
// and the ratio of the medians. Times of the same kind are taken at the same
// place: a start from the start of the process until its end, a transfer from
// the first byte of the request to the last of the answer. A budget that is not
// met says "over", and that is all: the exit code is 0 unless something could
// not be measured. On a busy machine the figures are noisy; the load before
// each part is in the table's last lines.
//
// # What it measures
//
//   - start: "backend.ai start", from the process until its end, which is when
//     the control connection of the session has answered; against a full run of
//     /bin/true by the OCI runtime with the specification of a session, where
//     the runtime compiles the seccomp program and makes the network namespace
//     itself, and against "docker run" of the same root to its first output. A
//     hundred starts at once, and what a start and removal cost the server.
//   - tunnel: "backend.ai app" to a program in a session, against two plain
//     relays in a row to the same program; the relays are processes of this
//     program that splice(2), and the second connects in the session's network.
//     The same, with and without TLS, against "ssh -L" with its fastest cipher
//     and an OpenSSH server in the session's network. 500 connections at once.
//   - memory: resident memory of the server, of a session's runner and of a
//     tunnel; the start of the client.
//   - ssh: the session's own SSH server against OpenSSH's, which runs as the
//     same user in the same session, by the same client through the same tunnel.
//   - terminal: keys and floods through a WebSocket and the tunnel, against a
//     pseudo terminal on this machine.
//   - folder: uploads and downloads, against cp with fsync on the same disk and
//     against scp to this machine; starts with and without a folder of a million
//     files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"backendai/internal/engine/oci"
)

// subject is a part of the table that -only can name.
type subject struct {
	name    string
	measure func(*bench, context.Context) error
}

var subjects = []subject{
	{"start", (*bench).start},
	{"tunnel", (*bench).tunnel},
	{"memory", (*bench).memory},
	{"ssh", (*bench).ssh},
	{"terminal", (*bench).terminal},
	{"folder", (*bench).folder},
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		if role, ok := roles[args[0]]; ok {
			if err := role(ctx, args[1:]); err != nil {
				fmt.Fprintln(errs, "bench:", err)
				return 1
			}
			return 0
		}
	}
	o, err := readOptions(args, errs)
	if err != nil {
		return 2
	}
	// A mount namespace of our own: the runtime needs one on hybrid cgroup hosts,
	// and what we mount is gone with us. It executes this program again.
	if err := oci.Isolate(); err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return 1
	}
	b := &bench{options: o, errs: errs, table: new(table)}
	err = b.run(ctx)
	if err := b.table.write(out); err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return 1
	}
	if err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return 1
	}
	return 0
}

// options are what the command line says.
type options struct {
	only    []string
	runs    int
	program string
	state   string
	size    int64 // of transfers, in bytes

	folderSize  int64 // of one large file, in bytes
	folderFiles int
}

func readOptions(args []string, errs io.Writer) (options, error) {
	names := make([]string, len(subjects))
	for i, s := range subjects {
		names[i] = s.name
	}
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errs)
	only := f.String("only", strings.Join(names, ","), "comma list of what to measure")
	f.IntVar(&o.runs, "runs", 30, "how often a start is measured; what takes longer is measured less often in proportion")
	f.StringVar(&o.program, "program", "bin/backend.ai", "the built program")
	f.StringVar(&o.state, "state", "", "folder that is kept, so that the next run finds its image; without it a temporary one")
	size := f.Int64("size", 1024, "size of transfers in MiB")
	folderSize := f.Int64("folder-size", 4096, "size of the large file of a folder in MiB")
	f.IntVar(&o.folderFiles, "folder-files", 100_000, "how many small files a folder gets; ten times as many are in the folder that sessions start with")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.only, o.size, o.folderSize = strings.Split(*only, ","), *size<<20, *folderSize<<20
	for _, name := range o.only {
		if !slices.Contains(names, name) {
			err := fmt.Errorf("-only %s: there are %s", name, strings.Join(names, ", "))
			fmt.Fprintln(errs, err)
			return o, err
		}
	}
	if o.runs < 1 || o.size < 1 || o.folderSize < 1 || o.folderFiles < 1 {
		err := errors.New("the numbers are at least 1")
		fmt.Fprintln(errs, err)
		return o, err
	}
	return o, nil
}

// bench is one run of all that is asked for.
type bench struct {
	options

	errs     io.Writer
	table    *table
	dir      string // for all that we make
	self     string // this program, for its other roles
	platform *platform
}

// run measures what is asked for; its error tells what could not be measured.
func (b *bench) run(ctx context.Context) (err error) {
	if b.program, err = filepath.Abs(b.program); err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	if _, err := os.Stat(b.program); err != nil {
		return fmt.Errorf("the program is not built, run make build first: %w", err)
	}
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if b.dir = b.state; b.state == "" {
		if b.dir, err = os.MkdirTemp("/var/tmp", "backend.ai-bench-"); err != nil { // a disk: images are large
			return fmt.Errorf("make a folder: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	b.say("starting a server below %s", b.dir)
	if b.platform, err = newPlatform(ctx, b.program, b.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.platform.close(context.WithoutCancel(ctx))) }()
	if err := b.image(ctx); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	var failed error
	for _, s := range subjects {
		if !slices.Contains(b.only, s.name) || ctx.Err() != nil {
			continue
		}
		b.table.note("load before %s: %s", s.name, load())
		b.say("measuring %s", s.name)
		if err := s.measure(b, ctx); err != nil {
			b.table.note("%s could not be measured: %v", s.name, err)
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(failed, context.Cause(ctx))
}

// rounds is how often a thing is measured that is measured n times by default.
func (b *bench) rounds(n int) int { return max(1, n*b.runs/30) }

// say tells on the way what goes on.
func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.errs, "bench: "+format+"\n", args...) }

// pause gives the machine time to end what it does after a start or a call.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// load is the machine's load of the last minute, with how many processors it has.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return minute
}
