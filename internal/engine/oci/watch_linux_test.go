package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backendai"
	"backendai/internal/engine"
)

// What a session says of its end is a stranger's word.
func TestReadRecord(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		ok     bool
		code   int
		reason string
		detail string
	}{
		"honest":         {`{"exit_code":3,"reason":"task-failed","detail":"it failed"}`, true, 3, backendai.ReasonTaskFailed, "it failed"},
		"empty":          {"", false, 0, "", ""},
		"torn":           {`{"exit_code":3,"rea`, false, 0, "", ""},
		"unknown reason": {`{"reason":"<script>"}`, true, 0, backendai.ReasonSelfTerminated, ""},
		"large code":     {`{"exit_code":-1,"reason":"self-terminated"}`, true, 255, backendai.ReasonSelfTerminated, ""},
		"control codes":  {`{"reason":"task-failed","detail":"a\u001b[31m\nb"}`, true, 0, backendai.ReasonTaskFailed, "a [31m b"},
		"long detail":    {`{"reason":"task-failed","detail":"` + strings.Repeat("é", 1000) + `"}`, true, 0, backendai.ReasonTaskFailed, strings.Repeat("é", maxDetail/2)},
		"too long":       {`{"detail":"` + strings.Repeat("x", maxRecord) + `"}`, false, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "record")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, ok := readRecord(file)
			if ok != c.ok || got.ExitCode != c.code || got.Reason != c.reason || got.Detail != c.detail {
				t.Errorf("the record is %+v, %v", got, ok)
			}
		})
	}
	if _, ok := readRecord(filepath.Join(t.TempDir(), "missing")); ok {
		t.Error("a missing record was read")
	}
}

// Why a session ended is put together of several words.
func TestExplainExit(t *testing.T) {
	e := &Engine{names: newNames("/x")}
	for name, c := range map[string]struct {
		ending, record string
		end            processEnd
		code           int
		reason         string
	}{
		"by itself":             {"", `{"exit_code":2,"reason":"self-terminated"}`, processEnd{known: true, code: 2}, 2, backendai.ReasonSelfTerminated},
		"stopped":               {backendai.ReasonUserRequested, `{"reason":"user-requested"}`, processEnd{known: true}, 0, backendai.ReasonUserRequested},
		"stopped after a batch": {backendai.ReasonUserRequested, `{"exit_code":1,"reason":"task-failed"}`, processEnd{known: true, code: 1}, 1, backendai.ReasonTaskFailed},
		"killed":                {backendai.ReasonForced, "", processEnd{known: true, signal: 9}, 137, backendai.ReasonForced},
		"killed by others":      {"", "", processEnd{known: true, signal: 9}, 137, backendai.ReasonSelfTerminated},
		"unseen, with a word":   {"", `{"exit_code":4,"reason":"task-finished"}`, processEnd{}, 4, backendai.ReasonTaskFinished},
		"unseen, stopped":       {"", `{"reason":"user-requested"}`, processEnd{}, 0, backendai.ReasonUserRequested},
		"unseen, wordless":      {"", "", processEnd{}, -1, backendai.ReasonLost},
		"memory, by its word":   {"", `{"exit_code":137,"reason":"out-of-memory"}`, processEnd{}, 137, backendai.ReasonOutOfMemory},
	} {
		t.Run(name, func(t *testing.T) {
			s := &session{id: "one", dir: t.TempDir(), ending: c.ending}
			if c.record != "" {
				if err := os.WriteFile(s.path(recordFile), []byte(c.record), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := e.explainExit(s, c.end)
			if got.Code != c.code || got.Reason != c.reason || got.OOM != (c.reason == backendai.ReasonOutOfMemory) {
				t.Errorf("the end is %+v", got)
			}
		})
	}
}

// A watcher that takes nothing holds up nobody, and misses nothing.
func TestWatchers(t *testing.T) {
	var w watchers
	slow := w.add(t.Context())
	const ends = 1000
	for i := range ends {
		w.send(engine.Exit{Code: i})
	}
	for i := range ends {
		if got := <-slow; got.Code != i {
			t.Fatalf("exit %d came as number %d", got.Code, i)
		}
	}
	w.close()
	if _, open := <-slow; open {
		t.Error("an exit came after the end")
	}
	if _, open := <-w.add(t.Context()); open {
		t.Error("a watch began after the end")
	}
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	if s, err := readState(dir); err != nil || s.Phase != phaseMaking {
		t.Errorf("without a state: %+v, %v", s, err)
	}
	want := state{Phase: phaseStopped, Net: 3, Exit: &engine.Exit{ID: "x", Code: 1, At: time.Unix(1, 0).UTC()}}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := readState(dir); err != nil || got.Phase != want.Phase || got.Net != 3 || *got.Exit != *want.Exit {
		t.Errorf("the state is %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(`{"phase":"ru`), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := readState(dir); err == nil || s.Phase != phaseRunning {
		t.Errorf("a torn state: %+v, %v", s, err)
	}
}
