package dotfile_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/dotfile"
	"backendai/internal/store"
)

func newService(t *testing.T) (*dotfile.Service, func(name string) backendai.Caller) {
	t.Helper()
	db, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s := dotfile.New(db, func(context.Context, backendai.Caller) ([]string, error) { return []string{".cache"}, nil })
	return s, func(name string) backendai.Caller {
		u := backendai.User{ID: "id-" + name, Email: name + "@x", Username: name}
		k := backendai.Keypair{AccessKey: "AKIA" + name, SecretKey: "s", UserID: u.ID}
		if err := db.InsertUser(t.Context(), &u, "", &k); err != nil {
			t.Fatal(err)
		}
		return backendai.Caller{User: u, Keypair: k}
	}
}

func TestDotfiles(t *testing.T) {
	s, user := newService(t)
	ctx := t.Context()
	alice, stranger := user("alice"), user("stranger")
	code := func(what string, err error, want backendai.Code) {
		t.Helper()
		if backendai.CodeOf(err) != want {
			t.Errorf("%.60s: %v, want %q", what, err, want)
		}
	}
	for _, name := range []string{".bashrc", "/home/work/.config/git/config", ".vim/./x", "plain"} {
		code(name, s.Create(ctx, alice, dotfile.File{Path: name, Permission: "644", Data: "data of " + name}), "")
	}
	for _, f := range []dotfile.File{
		{Path: "", Permission: "644"}, {Path: "/etc/passwd", Permission: "644"}, {Path: "../x", Permission: "644"}, {Path: "a/../../x", Permission: "644"},
		{Path: "/home/work/../x", Permission: "644"}, {Path: ".", Permission: "644"}, {Path: "a\nb", Permission: "644"}, {Path: strings.Repeat("x", 600), Permission: "644"},
		{Path: ".ssh", Permission: "644"}, {Path: ".ssh/authorized_keys", Permission: "644"}, {Path: ".local", Permission: "644"}, {Path: ".cache", Permission: "644"},
		{Path: ".x", Permission: "0644"}, {Path: ".x", Permission: "888"}, {Path: ".x", Permission: ""}, {Path: ".bashrc", Permission: "644"}, {Path: ".bashrc/x", Permission: "644"},
		{Path: ".config/git", Permission: "644"}, {Path: ".x", Permission: "644", Data: strings.Repeat("x", 64<<10)},
	} {
		code(fmt.Sprintf("%q %s", f.Path, f.Permission), s.Create(ctx, alice, f), backendai.CodeInvalidParams)
	}
	code("update", s.Update(ctx, alice, dotfile.File{Path: ".bashrc", Permission: "755", Data: "new"}), "")
	code("update of nothing", s.Update(ctx, alice, dotfile.File{Path: ".none", Permission: "755"}), backendai.CodeNotFound)
	if f, err := s.Get(ctx, alice, "/home/work/.bashrc"); err != nil || f != (dotfile.File{Path: ".bashrc", Permission: "755", Data: "new"}) {
		t.Errorf("Get = %+v, %v", f, err)
	}
	_, err := s.Get(ctx, stranger, ".bashrc")
	code("the stranger", err, backendai.CodeNotFound)
	code("the stranger deletes", s.Delete(ctx, stranger, ".bashrc"), backendai.CodeNotFound)
	code("delete", s.Delete(ctx, alice, ".config/git/config"), "")
	files, err := s.Files(ctx, alice.Keypair.AccessKey)
	want := []control.File{
		{Path: ".bashrc", Mode: 0o755, Data: []byte("new")}, {Path: ".vim/x", Mode: 0o644, Data: []byte("data of .vim/./x")}, {Path: "plain", Mode: 0o644, Data: []byte("data of plain")},
	}
	if diff := cmp.Diff(want, files); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for i := range 97 {
		code("many", s.Create(ctx, alice, dotfile.File{Path: fmt.Sprint(i), Permission: "600"}), "")
	}
	code("one too many", s.Create(ctx, alice, dotfile.File{Path: "last", Permission: "600"}), backendai.CodeInvalidParams)
	if list, err := s.List(ctx, stranger); err != nil || !slices.Equal(list, []dotfile.File{}) {
		t.Errorf("the stranger's list: %v, %v", list, err)
	}
}

func TestBootstrap(t *testing.T) {
	s, user := newService(t)
	ctx := t.Context()
	alice := user("alice")
	for _, script := range []string{"", "echo hello\n", "", "other"} {
		if err := s.SetBootstrap(ctx, alice, script); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Bootstrap(ctx, alice.Keypair.AccessKey); err != nil || got != script {
			t.Errorf("Bootstrap = %q, %v", got, err)
		}
	}
	if err := s.SetBootstrap(ctx, alice, strings.Repeat("x", 70_000)); backendai.CodeOf(err) != backendai.CodeInvalidParams {
		t.Errorf("a large script: %v", err)
	}
	if got, err := s.Bootstrap(ctx, "AKIAnobody"); err != nil || got != "" {
		t.Errorf("nobody's: %q, %v", got, err)
	}
}
