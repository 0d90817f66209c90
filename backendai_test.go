package backendai_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"backendai"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "256": 256, "4g": 4 << 30, "1.5k": 1536, "64m": 64 << 20, "64MiB": 64 << 20,
		"1_000": 1000, "2 GB": 2 << 30, "10b": 10, "1e": 1 << 60,
	} {
		if got, err := backendai.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "abc", "-1", "4x", "1e300", "99999999999e", "m", "NaN"} {
		if got, err := backendai.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		slot, text string
		want       int64
		back       string
	}{
		{"cpu", "2", 2000, "2"}, {"cpu", "0.5", 500, "0.5"}, {"mem", "1g", 1 << 30, "1073741824"},
		{"cuda.shares", "1.25", 1250, "1.25"}, {"cuda.mem", "1k", 1024, "1024"},
	} {
		got, err := backendai.ParseAmount(c.slot, c.text)
		if err != nil || got != c.want {
			t.Errorf("ParseAmount(%s, %s) = %d, %v; want %d", c.slot, c.text, got, err, c.want)
		}
		if back := backendai.FormatAmount(c.slot, got); back != c.back {
			t.Errorf("FormatAmount(%s, %d) = %s, want %s", c.slot, got, back, c.back)
		}
	}
	for _, text := range []string{"-1", "x", "", "NaN", "Inf", "1e40"} {
		if _, err := backendai.ParseAmount("cpu", text); err == nil {
			t.Errorf("ParseAmount(cpu, %q) gave no error", text)
		}
	}
}

func TestSlots(t *testing.T) {
	have := backendai.Slots{"cpu": 2000, "mem": 100}
	ask := backendai.Slots{"cpu": 500, "mem": 200}
	if got := ask.Exceeds(have); got != "mem" {
		t.Errorf("Exceeds = %q, want mem", got)
	}
	if got := have.Sub(ask); got["cpu"] != 1500 || got["mem"] != -100 || have["mem"] != 100 {
		t.Errorf("Sub = %v (of %v)", got, have)
	}
	if got := (backendai.Slots{"gpu": 1}).Exceeds(have); got != "gpu" {
		t.Errorf("a slot that the limit lacks: Exceeds = %q, want gpu", got)
	}
}

func TestFormatSize(t *testing.T) {
	for size, want := range map[int64]string{0: "0B", 1023: "1023B", 1536: "1.5KiB", 4 << 30: "4GiB"} {
		if got := backendai.FormatSize(size); got != want {
			t.Errorf("FormatSize(%d) = %s, want %s", size, got, want)
		}
	}
}

func TestStateTable(t *testing.T) {
	for _, from := range backendai.Statuses() {
		for _, to := range backendai.Statuses() {
			s := backendai.Session{Status: from}
			err := s.MoveTo(to, "reason", time.Unix(1, 0))
			if (err == nil) != from.CanBecome(to) {
				t.Errorf("MoveTo %s → %s: %v", from, to, err)
			}
			if err == nil && (s.Status != to || len(s.History) != 1) {
				t.Errorf("MoveTo %s → %s left %+v", from, to, s)
			}
			if err != nil && (s.Status != from || len(s.History) != 0) {
				t.Errorf("a refused step %s → %s changed the session", from, to)
			}
		}
		if from.Final() && from.Occupies() {
			t.Errorf("%s is over and holds resources", from)
		}
	}
}

func TestSessionNames(t *testing.T) {
	for _, name := range []string{"mysession", "a.b-c_d", "1234", strings.Repeat("x", 64)} {
		if err := backendai.ValidateSessionName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "abc", ".abc", "abc-", "a b c", "ab/cd", "наме", "from-template", strings.Repeat("x", 65), "abcd\n"} {
		err := backendai.ValidateSessionName(name)
		if backendai.CodeOf(err) != backendai.CodeInvalidParams {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("outer: %w", backendai.Errorf(backendai.CodeQuota, "read: %w", io.EOF).WithHint("try %d", 2))
	if backendai.CodeOf(err) != backendai.CodeQuota || !errors.Is(err, io.EOF) {
		t.Errorf("%v lost its code or cause", err)
	}
	if backendai.CodeOf(io.EOF) != backendai.CodeInternal || backendai.CodeOf(nil) != "" {
		t.Error("CodeOf of a plain error or of nil")
	}
	if backendai.CodeNotFound.HTTPStatus() != 404 || backendai.Code("strange").HTTPStatus() != 500 {
		t.Error("HTTPStatus")
	}
}
