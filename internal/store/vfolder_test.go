package store_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/vfolder"
)

func newFolder(id, name, user string) *backendai.VFolder {
	return &backendai.VFolder{
		ID: id, Name: name, UserID: user, Host: "local:default", Domain: "default", Permission: backendai.ReadWrite,
		Status: backendai.FolderReady, CreatedAt: time.Unix(1, 0).UTC(),
	}
}

func TestFolderIsKeptWhole(t *testing.T) {
	s := openStore(t, t.TempDir())
	one := &backendai.VFolder{}
	n := 0
	fill(reflect.ValueOf(one).Elem(), &n)
	if err := s.InsertFolder(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	got, err := s.Folder(t.Context(), one.ID)
	if diff := cmp.Diff(one, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	fill(reflect.ValueOf(got).Elem(), &n)
	got.ID = one.ID
	if err := s.UpdateFolder(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUsage(t.Context(), one.ID, 5, 6); err != nil {
		t.Fatal(err)
	}
	got.UsedBytes, got.UsedFiles = 5, 6
	again, err := s.Folder(t.Context(), one.ID)
	if diff := cmp.Diff(got, again); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestFolderNamesAndViews(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := t.Context()
	code := func(what string, err error, want backendai.Code) {
		t.Helper()
		if backendai.CodeOf(err) != want {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	project := newFolder("4", "data", "")
	project.Group = "team"
	trash := newFolder("3", "data", "alice")
	trash.Status = backendai.FolderTrashed
	code("first", s.InsertFolder(ctx, newFolder("1", "data", "alice")), "")
	code("the same name", s.InsertFolder(ctx, newFolder("9", "data", "alice")), backendai.CodeVFolderExists)
	code("another user's", s.InsertFolder(ctx, newFolder("2", "data", "bob")), "")
	code("in the trash", s.InsertFolder(ctx, trash), "")
	code("a project's", s.InsertFolder(ctx, project), "")
	trash.Status = backendai.FolderReady
	code("restored to a taken name", s.UpdateFolder(ctx, trash), backendai.CodeVFolderExists)
	code("missing", s.UpdateFolder(ctx, newFolder("8", "x", "alice")), backendai.CodeNotFound)
	code("delete a missing one", s.DeleteFolder(ctx, "8"), backendai.CodeNotFound)
	if err := s.SetShare(ctx, vfolder.Share{FolderID: "2", UserID: "alice", Permission: backendai.ReadOnly}); err != nil {
		t.Fatal(err)
	}
	list := func(q vfolder.Query) []string {
		t.Helper()
		found, err := s.Folders(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{}
		for _, f := range found {
			ids = append(ids, f.ID)
		}
		return ids
	}
	ready := []backendai.FolderStatus{backendai.FolderReady}
	for _, c := range []struct {
		q    vfolder.Query
		want []string
	}{
		{vfolder.Query{}, []string{"1", "2", "3", "4"}},
		{vfolder.Query{Statuses: ready}, []string{"1", "2", "4"}},
		{vfolder.Query{OwnerID: "alice"}, []string{"1", "3"}},
		{vfolder.Query{Viewer: &backendai.User{ID: "alice", Domain: "default", Group: "team"}, Statuses: ready}, []string{"1", "2", "4"}},
		{vfolder.Query{Viewer: &backendai.User{ID: "bob", Domain: "default", Group: "other"}}, []string{"2"}},
		{vfolder.Query{Viewer: &backendai.User{ID: "", Domain: "default", Group: ""}}, []string{}},
		{vfolder.Query{Host: "elsewhere"}, []string{}},
	} {
		if got := list(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.q, got, c.want)
		}
	}
	i := &vfolder.Invitation{ID: "i", FolderID: "1", FolderName: "data", Inviter: "a@x", Invitee: "b@x", Permission: "ro", State: vfolder.InvitationPending, CreatedAt: time.Unix(1, 0).UTC()}
	if err := s.InsertInvitation(ctx, i); err != nil {
		t.Fatal(err)
	}
	i.State, i.ModifiedAt = vfolder.InvitationAccepted, time.Unix(2, 0).UTC()
	if err := s.UpdateInvitation(ctx, i); err != nil {
		t.Fatal(err)
	}
	got, err := s.Invitation(ctx, "i")
	if diff := cmp.Diff(i, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, id := range []string{"1", "2"} {
		if err := s.DeleteFolder(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Invitation(ctx, "i")
	code("invitation to a deleted folder", err, backendai.CodeNotFound)
	if shares, err := s.Shares(ctx, vfolder.ShareQuery{UserID: "alice"}); err != nil || len(shares) > 0 {
		t.Errorf("shares of a deleted folder: %v, %v", shares, err)
	}
}

func TestFolderSessions(t *testing.T) {
	s := openStore(t, t.TempDir())
	a, b := newSession("mounts"), newSession("without")
	a.Mounts = []backendai.Mount{{FolderID: "other"}, {FolderID: "f", Target: "/x"}}
	insert(t, s, a)
	insert(t, s, b)
	if got, err := s.FolderSessions(t.Context(), "f"); err != nil || !slices.Equal(got, []string{"mounts"}) {
		t.Errorf("FolderSessions = %v, %v", got, err)
	}
	a.Status = backendai.StatusTerminated
	if err := s.UpdateSession(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got, err := s.FolderSessions(t.Context(), "f"); err != nil || len(got) > 0 {
		t.Errorf("after its end: %v, %v", got, err)
	}
}
