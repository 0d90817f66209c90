//go:build integration && linux

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/engine/enginetest"
)

const (
	networkEnv = "BACKENDAI_TEST_NETWORK" // set in the process that has a network of its own
	builtEnv   = "BACKENDAI_TEST_BUILT"   // folder with the runner and the image
)

// TestMain gives the tests a network of their own, so that they neither see nor
// change the machine's, then a mount namespace as servers have it, and builds
// the runner and an image once.
func TestMain(m *testing.M) {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare tests:", err)
		os.Exit(1)
	}
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	code := m.Run()
	if err := os.RemoveAll(os.Getenv(builtEnv)); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = 1
	}
	os.Exit(code)
}

func prepare() error {
	if os.Getenv(networkEnv) == "" {
		if err := build(); err != nil {
			return err
		}
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), networkEnv+"=1"))
	}
	return Isolate()
}

// build makes the runners, the tests' own and the real one, and a root file system of BusyBox.
func build() error {
	dir, err := os.MkdirTemp("", "oci-test-")
	if err != nil {
		return err
	}
	for name, source := range map[string]string{"runner": "./testdata/runner", "real": "../../../cmd/runner"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build runner: %s: %w", out, err)
		}
	}
	bin := filepath.Join(dir, "image", "bin")
	for _, d := range []string{bin, filepath.Join(dir, "image", "etc"), filepath.Join(dir, "image", "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("the package busybox-static is needed: %w", err)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755),
		os.WriteFile(filepath.Join(bin, "su"), busybox, 0o755), os.Chmod(filepath.Join(bin, "su"), 0o4755),
		os.Chmod(filepath.Join(dir, "image", "tmp"), 0o1777),
		os.WriteFile(filepath.Join(dir, "image", "etc", "passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"), 0o644),
		os.Setenv(builtEnv, dir),
	)
}

func built(name string) string { return filepath.Join(os.Getenv(builtEnv), name) }

// folder is the one image of the tests: a plain folder.
type folder struct{}

func (folder) Layers(_ context.Context, digest, _ string) ([]string, error) {
	if digest != "sha256:test" {
		return nil, backendai.NotFound("image", digest)
	}
	return []string{built("image")}, nil
}

func (folder) Release(context.Context, string) error { return nil }

func options(dir string) Options {
	return Options{
		StateDir: dir, RunDir: filepath.Join(dir, "run"), Images: folder{},
		Runner: built("runner"), Network: NetworkNone,
	}
}

func openEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("make engine: %v", err)
	}
	t.Cleanup(func() {
		all, err := e.List(context.Background())
		if err != nil {
			t.Errorf("list: %v", err)
		}
		for _, c := range all {
			if err := e.Remove(context.Background(), c.ID, 0); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func driver(change func(*Options)) enginetest.Driver {
	return enginetest.Driver{
		Image: backendai.Image{Ref: "test", Digest: "sha256:test"}, Survives: true,
		Open: func(t *testing.T, dir string) (engine.Engine, func()) {
			o := options(dir)
			change(&o)
			e, err := New(t.Context(), o)
			if err != nil {
				t.Fatalf("make engine: %v", err)
			}
			return e, func() {
				if err := e.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		},
	}
}

func TestSuite(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"crun":              func(o *Options) { o.Runtime = "crun" },
		"runc":              func(o *Options) { o.Runtime = "runc" },
		"crun, nat":         func(o *Options) { o.Network = NetworkNAT },
		"crun, real runner": func(o *Options) { o.Runner = built("real") },
	} {
		t.Run(name, func(t *testing.T) { enginetest.Run(t, driver(change)) })
	}
}

func spec() engine.Spec { return enginetest.Spec(driver(nil)) }

func create(t testing.TB, e *Engine, s engine.Spec) engine.Spec {
	t.Helper()
	if err := e.Create(t.Context(), s); err != nil {
		t.Fatalf("create: %v", err)
	}
	return s
}

// call sends a request of the test runner's own language.
func call(t testing.TB, e *Engine, id, what string, form url.Values) (string, error) {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return e.Dial(ctx, id) },
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://runner/test/"+what, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, b)
	}
	return string(b), err
}

// inside runs a command in a session.
func inside(t testing.TB, e *Engine, id string, arg ...string) (string, error) {
	t.Helper()
	return call(t, e, id, "exec", url.Values{"arg": arg})
}

func shell(t testing.TB, e *Engine, id, script string) (string, error) {
	t.Helper()
	return inside(t, e, id, "/bin/busybox", "sh", "-c", script)
}
