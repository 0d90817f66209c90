package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHost(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for text, want := range map[string]string{
		"ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n": "debian12",
		"ID=ubuntu\nVERSION_ID='24.04'\nVERSION_CODENAME=noble\n":   "ubuntu24.04",
		"ID=debian\nVERSION_CODENAME=sid\n":                         "debian-sid",
	} {
		if d, err := readDistribution(write("os-release", text)); err != nil || d.name() != want {
			t.Errorf("%q: %q, %v", text, d.name(), err)
		}
	}
	if _, err := readDistribution(write("os-release", "ID=alpine\n")); err == nil {
		t.Error("a distribution without a code name was taken")
	}
	if got, err := aptSources(dir); err == nil {
		t.Errorf("sources without any file: %q", got)
	}
	write("sources.list", "# nothing here\n")
	want := []string{
		write("sources.list.d/a.list", "deb http://deb.debian.org/debian bookworm main\n"),
		write("sources.list.d/debian.sources", "Types: deb\nURIs: http://deb.debian.org/debian\n"),
	}
	write("sources.list.d/off.sources.disabled", "Types: deb\n")
	got, err := aptSources(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLineRelay(t *testing.T) {
	var got []string
	r := &lineRelay{progress: func(line string) { got = append(got, line) }}
	for _, text := range []string{"one\ntw", "o\n\n  \n", "10%\r50%\r100%\n", "rest"} {
		if n, err := r.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}
	if diff := cmp.Diff([]string{"one", "two", "100%"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"python", "python:3.11", "localhost/x:1", "quay.io/a/b@sha256:" + string(make([]byte, 64)), "a:5000/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		full, err := canonical(name)
		if err != nil {
			return
		}
		again, err := canonical(full)
		if err != nil || again != full {
			t.Fatalf("%q became %q, then %q, %v", name, full, again, err)
		}
		if !hasRegistry(full) {
			t.Fatalf("%q became %q without a registry", name, full)
		}
	})
}
