package process_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai/internal/runner/process"
)

func executable(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestShellIsTheUsersChoice(t *testing.T) {
	own := executable(t, filepath.Join(t.TempDir(), "zsh"))
	if got, err := process.Shell(map[string]string{"SHELL": own}); err != nil || got != own {
		t.Errorf("%q, %v", got, err)
	}
	for _, useless := range []string{"", "/nowhere/zsh", t.TempDir()} {
		got, err := process.Shell(map[string]string{"SHELL": useless})
		if err != nil || got != "/bin/bash" && got != "/bin/ash" && got != "/bin/sh" {
			t.Errorf("%q gives %q, %v", useless, got, err)
		}
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	tool := executable(t, filepath.Join(dir, "tool"))
	if err := os.WriteFile(filepath.Join(dir, "text"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PATH": "relative:/nowhere:" + dir}
	for _, name := range []string{"tool", tool, "./tool"} {
		if got, err := process.LookPath(name, env, dir); err != nil || got != tool {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := process.LookPath("text", env, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what cannot be run: %v", err)
	}
}

func TestOddFolders(t *testing.T) {
	dir := t.TempDir()
	if got := process.TempDir(map[string]string{"TMPDIR": dir}); got != dir {
		t.Errorf("TMPDIR is %s, taken is %s", dir, got)
	}
	if got := process.TempDir(map[string]string{"TMPDIR": "/nowhere"}); got != "/tmp" && got != "/dev/shm" {
		t.Errorf("without TMPDIR: %s", got)
	}
	if got := process.WorkDir(dir); got != dir {
		t.Errorf("a folder: %s", got)
	}
	if got := process.WorkDir("/nowhere"); got != "/" {
		t.Errorf("no folder: %s", got)
	}
}

func TestEnviron(t *testing.T) {
	if diff := cmp.Diff([]string{"A=1", "B="}, process.Environ(map[string]string{"B": "", "A": "1"})); diff != "" {
		t.Error(diff)
	}
}

func shell(script string) *exec.Cmd {
	return &exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", script}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
}

func TestExitCodesOfManyAtOnce(t *testing.T) {
	table := process.NewTable(false)
	var wg sync.WaitGroup
	for code := range 50 {
		wg.Go(func() {
			var out bytes.Buffer
			child, output, err := table.StartPiped(shell("echo said; exit "+string(rune('0'+code%8))), &out)
			if err != nil {
				t.Error(err)
				return
			}
			state := child.Wait()
			output.Drain()
			output.Close()
			if state.Code != code%8 || out.String() != "said\n" || output.Tail() != "said\n" {
				t.Errorf("%s, %q", state, out.String())
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if !table.WaitAll(ctx) {
		t.Error("a child is left")
	}
}

func TestSignals(t *testing.T) {
	table := process.NewTable(false)
	child, err := table.Start(shell("sleep 100 & sleep 100"))
	if err != nil {
		t.Fatal(err)
	}
	if !child.GroupLives() {
		t.Error("the group is gone")
	}
	if err := child.SignalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if state := child.Wait(); state.Signal != syscall.SIGKILL || state.Code != 128+int(syscall.SIGKILL) {
		t.Errorf("%+v", state)
	}
	if err := child.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("a signal to the dead: %v", err)
	}
	if _, err := table.Start(&exec.Cmd{Path: "/nowhere"}); err == nil {
		t.Error("what is not there was started")
	}
	if _, err := table.Start(&exec.Cmd{Path: "/bin/true", Stdout: &bytes.Buffer{}}); err == nil {
		t.Error("a stream that has to be copied was taken")
	}
}
