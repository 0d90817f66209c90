package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/session"
)

func TestCreateRefuses(t *testing.T) {
	w := newWorld(t)
	big := func(n int) string { return strings.Repeat("x", n) }
	many := map[string]string{}
	for i := range 1025 {
		many[fmt.Sprintf("V%d", i)] = ""
	}
	tests := []struct {
		name   string
		change func(*session.CreateRequest)
		code   backendai.Code
		field  string // of the data
		title  string // has it
		hint   string // has it
	}{
		{"short name", func(r *session.CreateRequest) { r.Name = "abc" }, backendai.CodeInvalidParams, "name", `"abc"`, "4 to 64"},
		{"reserved name", func(r *session.CreateRequest) { r.Name = "from-template" }, backendai.CodeInvalidParams, "name", "", ""},
		{"no image", func(r *session.CreateRequest) { r.Image = "" }, backendai.CodeInvalidParams, "image", "", ""},
		{"unknown image", func(r *session.CreateRequest) { r.Image = "nope" }, backendai.CodeNotFound, "", `"nope"`, ""},
		{"other machine's image", func(r *session.CreateRequest) { r.Image = "arm" }, backendai.CodeInvalidParams, "architecture", "this machine is", ""},
		{"other architecture", func(r *session.CreateRequest) { r.Architecture = "arm64" }, backendai.CodeInvalidParams, "", "not for aarch64", ""},
		{"unknown type", func(r *session.CreateRequest) { r.Type = "inference" }, backendai.CodeInvalidParams, "type", `"inference"`, "interactive and batch"},
		{"unknown slot", func(r *session.CreateRequest) { r.Resources = map[string]string{"cuda.device": "1"} }, backendai.CodeInvalidParams, "resources.cuda.device", "cuda.device", "cpu, mem"},
		{"negative cpu", func(r *session.CreateRequest) { r.Resources = map[string]string{"cpu": "-1"} }, backendai.CodeInvalidParams, "resources.cpu", "cpu=-1", "cpu=2"},
		{"unreadable mem", func(r *session.CreateRequest) { r.Resources = map[string]string{"mem": "abc"} }, backendai.CodeInvalidParams, "resources.mem", `"abc"`, "mem=4g"},
		{"mem without unit", func(r *session.CreateRequest) { r.Resources = map[string]string{"mem": "256"} }, backendai.CodeInvalidParams, "resources.mem", "mem=256B", "mem=512m"},
		{"below the image's cpu", func(r *session.CreateRequest) { r.Resources = map[string]string{"cpu": "0.1"} }, backendai.CodeInvalidParams, "resources.cpu", "cpu=0.1 is less than the 0.5", "cpu=0.5"},
		{"below the image's mem", func(r *session.CreateRequest) { r.Resources = map[string]string{"mem": "70m"} }, backendai.CodeInvalidParams, "resources.mem", "mem=70MiB is less than the 80MiB", "mem=80m"},
		{"above the image's cpu", func(r *session.CreateRequest) { r.Resources = map[string]string{"cpu": "5"} }, backendai.CodeInvalidParams, "resources.cpu", "more than the 4", "cpu=4"},
		{"more than the machine", func(r *session.CreateRequest) { r.Resources = map[string]string{"mem": "64g"} }, backendai.CodeInvalidParams, "resources.mem", "mem=64GiB is more than the 4GiB that this machine has", "mem=4096m"},
		{"shmem of mem", func(r *session.CreateRequest) {
			r.Resources, r.ResourceOpts = map[string]string{"mem": "128m"}, map[string]string{"shmem": "128m"}
		}, backendai.CodeInvalidParams, "resource_opts.shmem", "shmem=128MiB", "more memory"},
		{"unreadable shmem", func(r *session.CreateRequest) { r.ResourceOpts = map[string]string{"shmem": "x"} }, backendai.CodeInvalidParams, "resource_opts.shmem", `"x"`, ""},
		{"zero shmem", func(r *session.CreateRequest) { r.ResourceOpts = map[string]string{"shmem": "0"} }, backendai.CodeInvalidParams, "resource_opts.shmem", "", ""},
		{"unknown option", func(r *session.CreateRequest) { r.ResourceOpts = map[string]string{"swap": "1g"} }, backendai.CodeInvalidParams, "resource_opts.swap", "", ""},
		{"faulty option", func(r *session.CreateRequest) {
			r.ResourceOpts = map[string]string{"allow_fractional_resource_fragmentation": "perhaps"}
		}, backendai.CodeInvalidParams, "resource_opts.allow_fractional_resource_fragmentation", "", ""},
		{"other domain", func(r *session.CreateRequest) { r.Domain = "other" }, backendai.CodeInvalidParams, "domain", `"other"`, ""},
		{"other group", func(r *session.CreateRequest) { r.Group = "other" }, backendai.CodeInvalidParams, "group", `"other"`, ""},
		{"tag of two lines", func(r *session.CreateRequest) { r.Tag = "a\nb" }, backendai.CodeInvalidParams, "tag", "", ""},
		{"priority", func(r *session.CreateRequest) { r.Priority = 101 }, backendai.CodeInvalidParams, "priority", "101", ""},
		{"cluster", func(r *session.CreateRequest) { r.ClusterSize = 2 }, backendai.CodeInvalidParams, "cluster_size", "2 containers are not supported", ""},
		{"max wait", func(r *session.CreateRequest) { r.MaxWait = -1 }, backendai.CodeInvalidParams, "max_wait_seconds", "", ""},
		{"long bootstrap", func(r *session.CreateRequest) { r.Bootstrap = big(64<<10 + 1) }, backendai.CodeInvalidParams, "bootstrap_script", "64KiB", ""},
		{"binary bootstrap", func(r *session.CreateRequest) { r.Bootstrap = "a\x00" }, backendai.CodeInvalidParams, "bootstrap_script", "", ""},
		{"startup of interactive", func(r *session.CreateRequest) { r.Startup = "true" }, backendai.CodeInvalidParams, "startup_command", "batch sessions only", ""},
		{"timeout of interactive", func(r *session.CreateRequest) { r.BatchTimeout = 1 }, backendai.CodeInvalidParams, "batch_timeout", "", ""},
		{"time of interactive", func(r *session.CreateRequest) { r.StartsAt = time.Now() }, backendai.CodeInvalidParams, "starts_at", "", ""},
		{"batch without command", func(r *session.CreateRequest) { r.Type = backendai.Batch }, backendai.CodeInvalidParams, "startup_command", "required", ""},
		{"env name", func(r *session.CreateRequest) { r.Environ = map[string]string{"A-B": ""} }, backendai.CodeInvalidParams, "environ", `"A-B"`, ""},
		{"env of ours", func(r *session.CreateRequest) { r.Environ = map[string]string{"BACKENDAI_ACCESS_KEY": "x"} }, backendai.CodeInvalidParams, "environ", "BACKENDAI_ACCESS_KEY", ""},
		{"home", func(r *session.CreateRequest) { r.Environ = map[string]string{"HOME": "/"} }, backendai.CodeInvalidParams, "environ", "HOME", ""},
		{"env value", func(r *session.CreateRequest) { r.Environ = map[string]string{"A": "\x00"} }, backendai.CodeInvalidParams, "environ", "", ""},
		{"env size", func(r *session.CreateRequest) { r.Environ = map[string]string{"A": big(256 << 10)} }, backendai.CodeInvalidParams, "environ", "256KiB", ""},
		{"env count", func(r *session.CreateRequest) { r.Environ = many }, backendai.CodeInvalidParams, "environ", "1024", ""},
		{"low port", func(r *session.CreateRequest) { r.PreopenPorts = []int{80} }, backendai.CodeInvalidParams, "preopen_ports", "80", ""},
		{"reserved port", func(r *session.CreateRequest) { r.PreopenPorts = []int{2200} }, backendai.CodeInvalidParams, "preopen_ports", "2200 is reserved", ""},
		{"port twice", func(r *session.CreateRequest) { r.PreopenPorts = []int{9000, 9000} }, backendai.CodeInvalidParams, "preopen_ports", "twice", ""},
		{"port of an app", func(r *session.CreateRequest) { r.PreopenPorts = []int{8080} }, backendai.CodeInvalidParams, "preopen_ports", "jupyter", ""},
		{"too many ports", func(r *session.CreateRequest) { r.PreopenPorts = make([]int, 65) }, backendai.CodeInvalidParams, "preopen_ports", "64", ""},
		{"callback scheme", func(r *session.CreateRequest) { r.CallbackURL = "file:///etc/passwd" }, backendai.CodeInvalidParams, "callback_url", "", ""},
		{"callback to us", func(r *session.CreateRequest) { r.CallbackURL = "http://127.0.0.1:8090/" }, backendai.CodeInvalidParams, "callback_url", "127.0.0.1", ""},
		{"callback to metadata", func(r *session.CreateRequest) { r.CallbackURL = "http://169.254.169.254/latest" }, backendai.CodeInvalidParams, "callback_url", "", ""},
		{"callback to mapped", func(r *session.CreateRequest) { r.CallbackURL = "http://[::ffff:10.0.0.1]/" }, backendai.CodeInvalidParams, "callback_url", "", ""},
		{"dependency", func(r *session.CreateRequest) { r.Dependencies = []string{"nobody"} }, backendai.CodeNotFound, "", "nobody", ""},
		{"folder", func(r *session.CreateRequest) {
			r.Mounts = []backendai.Mount{{Source: "data", Target: "/home/work/data"}}
		}, backendai.CodeNotFound, "", `"data"`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ask("mysession")
			tt.change(&r)
			_, err := w.Create(t.Context(), alice, r)
			e, ok := errors.AsType[*backendai.Error](err)
			if !ok || e.Code != tt.code || !strings.Contains(e.Title, tt.title) || !strings.Contains(e.Hint, tt.hint) || strings.Contains(e.Title, "\n") {
				t.Fatalf("%v (%v), want %s with %q and hint %q", err, e, tt.code, tt.title, tt.hint)
			}
			if data, _ := e.Data.(map[string]string); tt.field != "" && data[tt.field] == "" {
				t.Errorf("data %v has no %q", e.Data, tt.field)
			}
		})
	}
	if len(w.db.sessions) != 0 {
		t.Errorf("%d sessions were stored", len(w.db.sessions))
	}
	r := ask("mysession")
	r.Priority, r.Tag, r.Environ = 200, "\x00", map[string]string{"": ""}
	_, err := w.Create(t.Context(), alice, r)
	if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Title != "invalid parameters: environ, priority, tag" || len(e.Data.(map[string]string)) != 3 {
		t.Errorf("three faults: %v", err)
	}
}

func TestResourcesAreFilledIn(t *testing.T) {
	const mi = 1 << 20
	w := newWorld(t)
	tests := []struct {
		name, image     string
		resources, opts map[string]string
		want            backendai.Slots
		shmem           int64
	}{
		{"of the image", "python", nil, nil, backendai.Slots{"cpu": 500, "mem": 80 * mi}, 16 * mi},
		{"zero is missing", "python", map[string]string{"cpu": "0", "mem": "0"}, nil, backendai.Slots{"cpu": 500, "mem": 80 * mi}, 16 * mi},
		{"shmem counts", "python", nil, map[string]string{"shmem": "1g"}, backendai.Slots{"cpu": 500, "mem": 1088 * mi}, 1024 * mi},
		{"asked for", "python", map[string]string{"cpu": "2", "mem": "1g"}, nil, backendai.Slots{"cpu": 2000, "mem": 1024 * mi}, 16 * mi},
		{"of no label", "plain", nil, nil, backendai.Slots{"cpu": 1000, "mem": 1024 * mi}, 64 * mi},
		{"little memory", "plain", map[string]string{"mem": "32m"}, nil, backendai.Slots{"cpu": 1000, "mem": 32 * mi}, 16 * mi},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ask(fmt.Sprintf("mysession%d", i))
			r.Image, r.Resources, r.ResourceOpts = tt.image, tt.resources, tt.opts
			made, err := w.Create(t.Context(), alice, r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, made.Session.Requested); diff != "" || made.Session.Shmem != tt.shmem {
				t.Errorf("slots %s shmem %d", diff, made.Session.Shmem)
			}
			if spec := w.host.get(made.Session.ID).spec; !maps.Equal(spec.Slots, tt.want) || spec.Shmem != tt.shmem {
				t.Errorf("the engine was told %v, %d", spec.Slots, spec.Shmem)
			}
			if _, err := w.Destroy(t.Context(), alice, r.Name, true); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReuse(t *testing.T) {
	w := newWorld(t)
	one := w.start("mysession")
	again, err := w.Create(t.Context(), alice, ask("mysession"))
	if err != nil || again.Created || again.Session.ID != one.ID || len(again.Session.Apps) != 3 {
		t.Errorf("again: %+v, %v", again, err)
	}
	for name, change := range map[string]func(*session.CreateRequest){
		"no reuse":    func(r *session.CreateRequest) { r.Reuse = false },
		"other image": func(r *session.CreateRequest) { r.Image = "plain" },
	} {
		r := ask("mysession")
		change(&r)
		_, err := w.Create(t.Context(), alice, r)
		e, ok := errors.AsType[*backendai.Error](err)
		if !ok || e.Code != backendai.CodeSessionExists || !cmp.Equal(e.Data, any(map[string]string{"existingSessionId": one.ID})) || !strings.Contains(e.Title, "mysession") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Names are of one access key.
	if other, err := w.Create(t.Context(), stranger, ask("mysession")); err != nil || !other.Created {
		t.Errorf("another user: %+v, %v", other, err)
	}
}

func TestSameNameAtOnce(t *testing.T) {
	w := newWorld(t)
	var created sync.Map
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			r, err := w.Create(t.Context(), alice, ask("mysession"))
			if err != nil || r.Session.Status != backendai.StatusRunning {
				t.Errorf("%+v, %v", r.Session, err)
				return
			}
			if r.Created {
				created.Store(r.Session.ID, true)
			}
		})
	}
	all.Wait()
	n := 0
	created.Range(func(any, any) bool { n++; return true })
	if n != 1 || w.host.count() != 1 {
		t.Errorf("%d were created, %d containers", n, w.host.count())
	}
}

func TestHundredAtOnce(t *testing.T) {
	w := newWorld(t, func(w *world, o *session.Options) {
		o.Capacity = backendai.Slots{"cpu": 1000_000, "mem": 1 << 40}
	})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			r, err := w.Create(t.Context(), alice, ask(fmt.Sprintf("session-%d", i)))
			if err != nil || r.Session.Status != backendai.StatusRunning {
				t.Errorf("%+v, %v", r.Session, err)
			}
		})
	}
	all.Wait()
	if w.host.most > 2*runtime.NumCPU() || w.host.count() != 100 {
		t.Errorf("%d at one time, %d in the end", w.host.most, w.host.count())
	}
	for i := range 100 {
		all.Go(func() {
			if _, err := w.Destroy(t.Context(), alice, fmt.Sprintf("session-%d", i), i%2 == 0); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if w.host.count() != 0 {
		t.Errorf("%d are left", w.host.count())
	}
}

func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newWorld(t, func(w *world, _ *session.Options) {
			w.engine.onCreate = func(ctx context.Context, _ engine.Spec) error {
				select {
				case <-release:
				case <-ctx.Done():
				}
				return ctx.Err()
			}
		})
		r := ask("mysession")
		r.EnqueueOnly = true
		at := time.Now()
		made, err := w.Create(t.Context(), alice, r)
		if err != nil || made.Session.Status.Final() || time.Since(at) != 0 || !made.Created {
			t.Errorf("enqueue only: %+v, %v", made, err)
		}
		r.EnqueueOnly, r.MaxWait = false, 5*time.Second
		made, err = w.Create(t.Context(), alice, r)
		if err != nil || !made.TimedOut || made.Created || time.Since(at) != 5*time.Second || made.Session.Status != backendai.StatusCreating {
			t.Errorf("max wait: %+v, %v after %s", made, err, time.Since(at))
		}
		// A caller who goes away changes nothing.
		r.Name = "other"
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r.MaxWait = 0
		if _, err := w.Create(ctx, alice, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gone: %v", err)
		}
		close(release)
		for _, name := range []string{"mysession", "other"} {
			if again, err := w.Create(t.Context(), alice, ask(name)); err != nil || again.Created || again.Session.Status != backendai.StatusRunning {
				t.Errorf("in the end: %+v, %v", again, err)
			}
		}
	})
}
