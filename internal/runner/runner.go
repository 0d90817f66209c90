// Package runner is PID 1 of a session: it answers the control connection,
// prepares the home, runs sshd and ttyd, starts services on first use, runs the
// batch command, keeps the log and leaves an exit record.
//
// Everything that a session does stays below it, and nothing that the user
// does ends it: the server does, by a shutdown, or the engine by killing it.
package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/process"
	"backendai/internal/runner/service"
	"backendai/internal/runner/sshd"
)

// exitKilled is the exit code of a runner that was ended by force.
const exitKilled = 128 + int(syscall.SIGKILL)

// killPause is how long the dead may take to be collected before those that
// were born meanwhile are killed too; killLimit is when to give up on them.
const (
	killPause = 50 * time.Millisecond
	killLimit = 5 * time.Second
)

// Options are what a runner is made of. All but Definitions and LogLimit are
// required; the runner closes the Listener and leaves the files open.
type Options struct {
	Config      control.Config
	Listener    net.Listener   // of the control connection
	Log         *os.File       // open for reading and appending
	Record      *os.File       // takes the exit record
	Table       *process.Table // starts and reaps
	Definitions string         // directory of service definitions; "" is the image's
	LogLimit    int64          // bytes; 0 is control.LogLimit
}

// Runner is one session's.
type Runner struct {
	Options
	log        *sessionLog
	services   *service.Services
	builtin    []*builtin
	terminals  terminals
	events     events
	foreground foreground
	started    time.Time

	ready    chan struct{} // closed when the built-in apps accept connections
	prepared chan struct{} // closed when services may start
	shutdown chan struct{} // closed when the server asks for the end
	ending   chan struct{} // closed when the end has begun
	once     sync.Once     // over closing shutdown

	mu      sync.Mutex
	keys    *sshd.Keys        // who may log in; nil until sshd runs
	result  *control.Event    // the end of the batch
	outputs []*process.Output // of bootstrap and batch
}

// New makes a runner. Run must be called.
func New(o Options) (*Runner, error) {
	if o.LogLimit == 0 {
		o.LogLimit = control.LogLimit
	}
	log, err := newSessionLog(o.Log, o.LogLimit)
	if err != nil {
		return nil, err
	}
	r := &Runner{
		Options: o, log: log, started: time.Now(),
		ready: make(chan struct{}), prepared: make(chan struct{}),
		shutdown: make(chan struct{}), ending: make(chan struct{}),
	}
	r.services = service.New(service.Options{
		Config: o.Config, Definitions: o.Definitions, Builtin: builtinApps(), Table: o.Table,
		Log: log, Publish: r.events.publish, Prepared: r.prepared,
	})
	return r, nil
}

// Run runs the session until the server asks for its end, or until ctx ends,
// which kills everything at once. It returns when nothing of the session is
// left, having written the record, which it also gives. Call it once.
func (r *Runner) Run(ctx context.Context) control.ExitRecord {
	life, end := context.WithCancel(ctx)
	defer end()
	reaped := r.reap(ctx)
	answers, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server := r.server(answers)
	failed := make(chan error, 2) // one of each task below
	var tasks sync.WaitGroup
	// The control connection comes first: the server is waiting for it.
	tasks.Go(func() {
		if err := server.Serve(bounded(r.Listener)); err != http.ErrServerClosed {
			failed <- fmt.Errorf("serve the control connection: %w", err)
		}
	})
	tasks.Go(func() {
		if err := r.begin(life, &tasks); err != nil {
			failed <- err
		}
	})
	record := r.wait(ctx, failed)
	close(r.ending)
	r.services.Drain()
	end()
	r.killAll(ctx, record.ExitCode)
	// The dead may have left words in their pipes.
	r.services.Close()
	for _, o := range r.kept() {
		o.Drain()
		o.Close()
	}
	record = r.conclude(record)
	r.writeRecord(record)
	r.events.close()
	r.log.Close()
	closeServer(answers, server)
	tasks.Wait()
	reaped()
	return record
}

// reap collects the dead for as long as the runner runs; the function that it
// gives ends that.
func (r *Runner) reap(ctx context.Context) (stop func()) {
	if !r.Table.Init() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Table.Reap(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// begin opens the built-in apps, prepares the home and runs what the session
// is to run. Only a session that cannot be reached is an error.
func (r *Runner) begin(ctx context.Context, tasks *sync.WaitGroup) error {
	if err := os.MkdirAll(r.Config.Home, 0o755); err != nil {
		r.note("there is no home: %v", err) // an odd image still has terminals
	}
	if err := writeFiles(r.Config.Home, r.Config.Files); err != nil {
		r.note("%v", err)
	}
	if err := r.openBuiltin(); err != nil {
		return err
	}
	for _, b := range r.builtin {
		tasks.Go(func() {
			if err := b.server.Serve(ctx, b.listener); err != nil && ctx.Err() == nil {
				r.note("%s ended: %v", b.name, err)
			}
		})
	}
	close(r.ready)
	r.bootstrap(ctx)
	close(r.prepared)
	r.batch(ctx)
	return nil
}

// wait waits for the end of the session and says what it is.
func (r *Runner) wait(ctx context.Context, failed <-chan error) control.ExitRecord {
	select {
	case <-r.shutdown:
		return control.ExitRecord{Reason: backendai.ReasonUserRequested}
	case err := <-failed:
		r.note("the session ends: %v", err)
		return control.ExitRecord{ExitCode: 1, Reason: backendai.ReasonFailedToStart, Detail: err.Error()}
	case <-ctx.Done():
		return control.ExitRecord{ExitCode: exitKilled, Reason: backendai.ReasonForced}
	}
}

// killAll ends every process: gently within control.ShutdownGrace, unless ctx
// has ended or the session is to be killed, then by force.
func (r *Runner) killAll(ctx context.Context, code int) {
	gentle, cancel := context.WithTimeout(ctx, control.ShutdownGrace)
	defer cancel()
	if code != exitKilled {
		// Interactive shells ignore SIGTERM, and a stopped process hears neither.
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGCONT} {
			r.Table.SignalAll(sig)
		}
		if r.Table.WaitAll(gentle) {
			return
		}
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	for limit.Err() == nil {
		r.Table.SignalAll(syscall.SIGKILL)
		pause, cancel := context.WithTimeout(limit, killPause)
		dead := r.Table.WaitAll(pause)
		cancel()
		if dead {
			return
		}
	}
}

// conclude gives a session that was over already the result of its batch.
func (r *Runner) conclude(record control.ExitRecord) control.ExitRecord {
	record.At = time.Now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.result != nil && record.Reason == backendai.ReasonUserRequested {
		record.ExitCode, record.Reason, record.Detail = r.result.ExitCode, r.result.Reason, r.result.Detail
	}
	return record
}

func (r *Runner) writeRecord(record control.ExitRecord) {
	data, err := json.Marshal(record)
	if err == nil {
		err = r.Record.Truncate(0)
	}
	if err == nil {
		_, err = r.Record.WriteAt(append(data, '\n'), 0)
	}
	if err != nil {
		r.note("write exit record: %v", err)
	}
}

// closeServer lets answers that are being written out, then ends what is left.
func closeServer(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // its errors are those of connections that are let go
	}
}

// keep remembers the output of a process to close it at the end: what the
// process leaves running may go on printing.
func (r *Runner) keep(o *process.Output) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outputs = append(r.outputs, o)
}

func (r *Runner) kept() []*process.Output {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.outputs)
}

func (r *Runner) setResult(e control.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result = &e
}
