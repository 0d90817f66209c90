//go:build linux

package vfolder_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"backendai"
	"backendai/internal/vfolder"
)

const host = "local:default"

// world is a service with its users: alice and the stranger of one project, and
// an administrator.
type world struct {
	*vfolder.Service

	store                  *memory
	dir                    string // of the storage host
	alice, stranger, admin backendai.Caller
	clock                  time.Time
}

func newWorld(t *testing.T, edit ...func(*vfolder.Options)) *world {
	t.Helper()
	w := &world{store: newMemory(), dir: filepath.Join(t.TempDir(), "folders"), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	caller := func(name string, role backendai.Role) backendai.Caller {
		u := backendai.User{ID: "id-" + name, Email: name + "@example.org", Role: role, Domain: "default", Group: "default", Active: true}
		w.store.users = append(w.store.users, u)
		k := backendai.Keypair{AccessKey: "AKIA" + name, UserID: u.ID, Active: true}
		w.store.keypairs[k.AccessKey] = k
		return backendai.Caller{User: u, Keypair: k}
	}
	w.alice, w.stranger, w.admin = caller("alice", backendai.RoleUser), caller("stranger", backendai.RoleUser), caller("admin", backendai.RoleSuperadmin)
	opts := vfolder.Options{
		Store: w.store, Hosts: map[string]string{host: w.dir}, DefaultHost: host, Key: []byte("a key of the test"),
		Now: func() time.Time { return w.clock },
	}
	for _, f := range edit {
		f(&opts)
	}
	var err error
	if w.Service, err = vfolder.New(opts); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) create(t *testing.T, who backendai.Caller, name string) vfolder.View {
	t.Helper()
	v, err := w.Create(t.Context(), who, vfolder.CreateRequest{Name: name})
	if err != nil {
		t.Fatalf("create %q: %v", name, err)
	}
	return v
}

// content is the directory of a folder's files.
func (w *world) content(v vfolder.View) string {
	return filepath.Join(w.dir, v.Hex()[:2], v.Hex()[2:], "data")
}

func (w *world) write(t *testing.T, v vfolder.View, name, text string) {
	t.Helper()
	path := filepath.Join(w.content(v), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, code backendai.Code) {
	t.Helper()
	if backendai.CodeOf(err) != code {
		t.Errorf("%s: %v (%s), want %q", what, err, backendai.CodeOf(err), code)
	}
}
