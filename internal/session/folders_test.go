package session_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/session"
)

// folders has the folder "data", and ".ssh", which mounts by itself.
type folders struct{ gone bool }

func (f *folders) Resolve(_ context.Context, caller backendai.Caller, asked []backendai.Mount) ([]backendai.Mount, error) {
	mounts := []backendai.Mount{{Source: ".ssh", Target: "/home/work/.ssh", Permission: "rw", FolderID: caller.User.ID + "-ssh", Auto: true}}
	for _, m := range asked {
		if m.Source != "data" {
			return nil, backendai.NotFound("folder", m.Source)
		}
		m.FolderID = caller.User.ID + "-data"
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func (f *folders) Attach(_ context.Context, mounts []backendai.Mount) ([]engine.Mount, error) {
	if f.gone {
		return nil, backendai.NotFound("folder", mounts[len(mounts)-1].Source)
	}
	var attached []engine.Mount
	for _, m := range mounts {
		attached = append(attached, engine.Mount{Source: "/srv/" + m.FolderID, Target: m.Target, ReadOnly: m.Permission == "ro"})
	}
	return attached, nil
}

func TestMounts(t *testing.T) {
	f := &folders{}
	w := newWorld(t, func(_ *world, o *session.Options) { o.Folders = f })
	r := ask("mysession")
	r.Mounts = []backendai.Mount{{Source: "data", Target: "/home/work/data", Permission: "ro"}}
	made, err := w.Create(t.Context(), alice, r)
	if err != nil || made.Session.Status != backendai.StatusRunning {
		t.Fatalf("%+v, %v", made, err)
	}
	want := []engine.Mount{{Source: "/srv/id-alice-ssh", Target: "/home/work/.ssh"}, {Source: "/srv/id-alice-data", Target: "/home/work/data", ReadOnly: true}}
	spec := w.host.get(made.Session.ID).spec
	if diff := cmp.Diff(want, spec.Mounts); diff != "" {
		t.Error(diff)
	}
	if got := spec.Runner.Env["BACKENDAI_PERSISTENT_PATHS"]; got != "/home/work/.ssh:/home/work/data" {
		t.Errorf("persistent paths %q", got)
	}
	r.Name, r.Mounts = "another", []backendai.Mount{{Source: "nope"}}
	if _, err := w.Create(t.Context(), alice, r); backendai.CodeOf(err) != backendai.CodeNotFound {
		t.Errorf("an unknown folder: %v", err)
	}
	f.gone = true
	made, err = w.Create(t.Context(), alice, ask("another"))
	if err != nil || made.Session.Status != backendai.StatusError || made.Session.StatusMessage != `no such folder: ".ssh"` {
		t.Errorf("a folder that has gone: %+v, %v", made.Session, err)
	}
}
