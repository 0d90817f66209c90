package session_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"testing"
	"time"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/session"
)

// world is a database and a host, and the servers that come and go on them.
type world struct {
	t      *testing.T
	db     *database
	host   *host
	images *images
	logs   string
	stop   func()

	*session.Service
	store  *store
	engine *driver
	real   engine.Engine // in place of the driver, if not nil
}

// newWorld has a server. change may set hooks before it runs.
func newWorld(t *testing.T, change ...func(*world, *session.Options)) *world {
	t.Helper()
	w := &world{t: t, db: newDatabase(), host: newHost(t), images: newImages(), logs: t.TempDir()}
	w.serve(change...)
	t.Cleanup(func() { w.stop() })
	return w
}

// serve starts a server on what is there.
func (w *world) serve(change ...func(*world, *session.Options)) {
	w.t.Helper()
	w.store, w.engine = &store{database: w.db}, &driver{host: w.host}
	opts := session.Options{
		Store: w.store, Engine: w.engine, Images: w.images, Derive: derive, LogDir: w.logs, LogRetention: 24 * time.Hour,
		Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	}
	for _, c := range change {
		c(w, &opts)
	}
	s, err := session.New(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service = s
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, errDead) {
			w.t.Errorf("Run: %v", err)
		}
		done <- nil
	}
}

// crash ends the server as kill -9 does: nothing that it still does matters.
func (w *world) crash() {
	w.store.die()
	w.engine.die()
	w.stop()
}

func derive(purpose, id string) []byte {
	sum := sha256.Sum256([]byte(purpose + "/" + id))
	return sum[:]
}

func caller(name string, role backendai.Role) backendai.Caller {
	return backendai.Caller{
		User:    backendai.User{ID: "id-" + name, Email: name + "@example.org", Username: name, Role: role, Domain: "default", Group: "default", Active: true},
		Keypair: backendai.Keypair{AccessKey: "AKIA" + name, UserID: "id-" + name},
	}
}

var (
	alice    = caller("alice", backendai.RoleUser)
	stranger = caller("stranger", backendai.RoleUser)
	admin    = caller("admin", backendai.RoleSuperadmin)
)

func ask(name string) session.CreateRequest {
	return session.CreateRequest{
		Name: name, Image: "python", Type: backendai.Interactive, Domain: "default", Group: "default",
		Priority: 10, ClusterSize: 1, Reuse: true,
	}
}

// start makes a session of alice and wants it to run.
func (w *world) start(name string) *backendai.Session {
	w.t.Helper()
	r, err := w.Create(w.t.Context(), alice, ask(name))
	if err != nil {
		w.t.Fatalf("create %s: %v", name, err)
	}
	if r.Session.Status != backendai.StatusRunning {
		w.t.Fatalf("create %s: it is %s: %s: %s", name, r.Session.Status, r.Session.StatusInfo, r.Session.StatusMessage)
	}
	return r.Session
}

// until waits for an event of a session; sub must have been subscribed before.
func (w *world) until(sub <-chan backendai.Event, name string) backendai.Event {
	w.t.Helper()
	for {
		select {
		case e, open := <-sub:
			if !open {
				w.t.Fatalf("the events ended before %s", name)
			}
			if e.Name == name {
				return e
			}
		case <-time.After(20 * time.Second):
			w.t.Fatalf("there was no %s", name)
		}
	}
}

func (w *world) listen(f session.EventFilter) <-chan backendai.Event {
	w.t.Helper()
	sub, err := w.Events(w.t.Context(), admin, f)
	if err != nil {
		w.t.Fatal(err)
	}
	return sub
}

// record is what the database has of a session.
func (w *world) record(id string) *backendai.Session {
	w.t.Helper()
	one, err := (&store{database: w.db}).Session(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return one
}

func statuses(one *backendai.Session) []backendai.Status {
	var list []backendai.Status
	for _, step := range one.History {
		list = append(list, step.Status)
	}
	return list
}
