//go:build integration

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// counting is a way to a server that counts the bytes to it, and that stays when
// the server is another one.
type counting struct {
	address string
	sent    atomic.Int64
}

func newCounting(t *testing.T, to func() string) *counting {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := &counting{address: l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", to())
				if err != nil {
					return // the server is away
				}
				defer out.Close()
				go func() {
					_, _ = io.Copy(in, out)
					_ = in.Close()
				}()
				buf := make([]byte, 64<<10)
				for {
					n, err := in.Read(buf)
					c.sent.Add(int64(n))
					if _, writeErr := out.Write(buf[:n]); err != nil || writeErr != nil {
						return
					}
				}
			}()
		}
	}()
	return c
}

// TestUploadSurvivesCrashes kills the client and the server at random moments of
// a large upload, again and again. What was acknowledged is not sent again, the
// file appears when all of it is there, and nothing is left beside it.
func TestUploadSurvivesCrashes(t *testing.T) {
	const size, rounds = 2 << 30, 50
	dir, err := os.MkdirTemp("/var/tmp", "backend.ai-upload-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := newPlatform(dir, "--engine", "fake")
	if err := p.boot(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	way := newCounting(t, func() string { return p.address })
	u := p.addUser(t, "uploader")
	u.env = append(u.env, "BACKEND_ENDPOINT=http://"+way.address)
	u.must(t, "vfolder", "create", "data")
	file := filepath.Join(u.home, "large")
	sum := random(t, file, size)
	content := p.folderDir(t, u, "data")

	way.sent.Store(0)
	for round := range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, program, "vfolder", "upload", "data", "large")
		cmd.Env, cmd.Dir = u.env, u.home
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("round %d: %v: %s", round, err, out.String())
			}
			t.Fatalf("the upload has ended in round %d: it is to be killed %d times", round, rounds)
		case <-time.After(time.Duration(20+rand.IntN(200)) * time.Millisecond):
		}
		if round%2 == 0 {
			_ = cmd.Process.Kill()
		} else {
			p.kill()
			_ = cmd.Process.Signal(syscall.SIGINT) // a client that waits for the server, ended by its user
		}
		<-ended
		cancel()
		if round%2 != 0 {
			if err := p.boot(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(filepath.Join(content, "large")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("round %d: a file that is not whole shows: %v", round, err)
		}
	}
	// At last a server that is killed in the middle and comes back, while the client waits.
	cmd := exec.Command(program, "vfolder", "upload", "data", "large")
	cmd.Env, cmd.Dir = u.env, u.home
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	p.kill()
	if err := p.boot(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the last upload: %v: %s", err, out.String())
	}
	sent := way.sent.Load()
	again := float64(sent-size) / size * 100
	t.Logf("%d bytes were sent for a file of %d: %.2f %% again, in %d crashes", sent, int64(size), again, rounds+1)
	if again > rounds { // one in a hundred for each crash
		t.Errorf("%.2f %% were sent again in %d crashes", again, rounds+1)
	}
	if got := hash(t, filepath.Join(content, "large")); got != sum {
		t.Error("the file in the folder is another one")
	}
	left, err := filepath.Glob(filepath.Join(content, "..", "upload", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}

	// The way back, killed too.
	for round := range 10 {
		cmd := exec.Command(program, "vfolder", "download", "-b", "back", "data", "large")
		if err := os.MkdirAll(filepath.Join(u.home, "back"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Env, cmd.Dir = u.env, u.home
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(filepath.Join(u.home, "back", "large")); err == nil && round < 3 {
			t.Fatalf("the download was whole in round %d", round)
		}
	}
	u.must(t, "vfolder", "download", "--overwrite", "-b", "back", "data", "large")
	if got := hash(t, filepath.Join(u.home, "back", "large")); got != sum {
		t.Error("the file that came back is another one")
	}
	names, err := os.ReadDir(filepath.Join(u.home, "back"))
	if err != nil || len(names) != 1 {
		t.Errorf("left over: %v, %v", names, err)
	}
}

// random makes a file of noise and gives its hash.
func random(t *testing.T, name string, size int64) string {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8([32]byte{1}), size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func hash(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return strings.ToLower(fmt.Sprintf("%x", h.Sum(nil)))
}
