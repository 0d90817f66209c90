//go:build linux

package vfolder_test

import (
	"slices"
	"testing"

	"backendai"
	"backendai/internal/vfolder"
)

func TestInvitations(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	w.create(t, w.alice, ".ssh")
	emails := []string{"stranger@example.org"}

	_, err := w.Invite(ctx, w.alice, ".ssh", backendai.ReadOnly, emails)
	wantCode(t, "a dot folder", err, backendai.CodeInvalidParams)
	_, err = w.Invite(ctx, w.alice, "data", backendai.ReadOnly, []string{"nobody@example.org"})
	wantCode(t, "an unknown user", err, backendai.CodeNotFound)
	_, err = w.Invite(ctx, w.alice, "data", backendai.ReadOnly, []string{"alice@example.org"})
	wantCode(t, "oneself", err, backendai.CodeInvalidParams)
	_, err = w.Invite(ctx, w.stranger, v.ID, backendai.ReadOnly, emails)
	wantCode(t, "the stranger invites itself", err, backendai.CodeNotFound)

	invited, err := w.Invite(ctx, w.alice, "data", backendai.ReadWrite, emails)
	if err != nil || !slices.Equal(invited, emails) {
		t.Fatalf("Invite = %v, %v", invited, err)
	}
	if again, err := w.Invite(ctx, w.alice, "data", backendai.ReadWrite, emails); err != nil || len(again) != 0 {
		t.Errorf("a second time: %v, %v", again, err)
	}
	_, err = w.Find(ctx, w.stranger, "data")
	wantCode(t, "before it is accepted", err, backendai.CodeNotFound)
	list, err := w.Invitations(ctx, w.stranger, false)
	if err != nil || len(list) != 1 || list[0].FolderName != "data" || list[0].Permission != backendai.ReadWrite {
		t.Fatalf("Invitations = %v, %v", list, err)
	}
	if sent, err := w.Invitations(ctx, w.alice, true); err != nil || len(sent) != 1 {
		t.Errorf("sent: %v, %v", sent, err)
	}
	wantCode(t, "another accepts", w.Accept(ctx, w.admin, list[0].ID), backendai.CodeNotFound)
	own := w.create(t, w.stranger, "data")
	wantCode(t, "a name that the invitee has", w.Accept(ctx, w.stranger, list[0].ID), backendai.CodeVFolderExists)
	if err := w.Rename(ctx, w.stranger, own.ID, "own"); err != nil {
		t.Fatal(err)
	}
	if err := w.Accept(ctx, w.stranger, list[0].ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "accept twice", w.Accept(ctx, w.stranger, list[0].ID), backendai.CodeNotFound)

	got, err := w.Find(ctx, w.stranger, "data")
	if err != nil || got.Owner || got.Manager || got.Effective != backendai.ReadWrite {
		t.Errorf("Find = %+v, %v", got, err)
	}
	wantCode(t, "rename by another", w.Rename(ctx, w.stranger, "data", "mine"), backendai.CodeForbidden)
	wantCode(t, "trash by another", w.Trash(ctx, w.stranger, "data"), backendai.CodeForbidden)
	wantCode(t, "a dot name for a shared folder", w.Rename(ctx, w.alice, "data", ".data"), backendai.CodeVFolderFailed)
	if mounts, err := w.Resolve(ctx, w.stranger, []backendai.Mount{{Source: "data"}}); err != nil || mounts[0].Permission != "rw" {
		t.Errorf("Resolve = %v, %v", mounts, err)
	}

	wantCode(t, "the owner leaves", w.Leave(ctx, w.alice, "data", ""), backendai.CodeInvalidParams)
	wantCode(t, "one who has it throws the owner out", w.Leave(ctx, w.stranger, "data", "id-alice"), backendai.CodeForbidden)
	if err := w.Leave(ctx, w.stranger, "data", ""); err != nil {
		t.Fatal(err)
	}
	_, err = w.Find(ctx, w.stranger, v.ID)
	wantCode(t, "after leaving", err, backendai.CodeNotFound)
}

func TestDeclineAndThrowOut(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	v := w.create(t, w.alice, "data")
	invite := func() string {
		t.Helper()
		if invited, err := w.Invite(ctx, w.alice, "data", backendai.WriteDelete, []string{"stranger@example.org"}); err != nil || len(invited) != 1 {
			t.Fatalf("Invite = %v, %v", invited, err)
		}
		list, err := w.Invitations(ctx, w.stranger, false)
		if err != nil || len(list) != 1 {
			t.Fatalf("Invitations = %v, %v", list, err)
		}
		return list[0].ID
	}
	for _, who := range []backendai.Caller{w.stranger, w.alice} {
		id := invite()
		wantCode(t, "another declines", w.Decline(ctx, w.admin, id), backendai.CodeNotFound)
		if err := w.Decline(ctx, who, id); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "accept what is declined", w.Accept(ctx, w.stranger, id), backendai.CodeNotFound)
	}
	if err := w.Accept(ctx, w.stranger, invite()); err != nil {
		t.Fatal(err)
	}
	if err := w.Leave(ctx, w.alice, "data", "id-stranger"); err != nil {
		t.Fatal(err)
	}
	_, err := w.Find(ctx, w.stranger, v.ID)
	wantCode(t, "after being thrown out", err, backendai.CodeNotFound)
}

// TestAcceptOneself: who sent an invitation cannot accept it for the invitee.
func TestAcceptOneself(t *testing.T) {
	w := newWorld(t)
	w.create(t, w.alice, "data")
	if _, err := w.Invite(t.Context(), w.alice, "data", backendai.ReadOnly, []string{"stranger@example.org"}); err != nil {
		t.Fatal(err)
	}
	list, err := w.Invitations(t.Context(), w.alice, true)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	wantCode(t, "the inviter accepts", w.Accept(t.Context(), w.alice, list[0].ID), backendai.CodeNotFound)
}

func TestProjectShares(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if _, err := w.Create(ctx, w.admin, vfolder.CreateRequest{Name: "ours", Group: "default", Permission: backendai.ReadWrite}); err != nil {
		t.Fatal(err)
	}
	effective := func() backendai.Permission {
		t.Helper()
		v, err := w.Find(ctx, w.alice, "ours")
		if err != nil {
			t.Fatal(err)
		}
		return v.Effective
	}
	if p := effective(); p != backendai.ReadWrite {
		t.Errorf("a member has %s", p)
	}
	_, err := w.Share(ctx, w.alice, "ours", backendai.WriteDelete, []string{"alice@example.org"})
	wantCode(t, "a member shares", err, backendai.CodeForbidden)
	if _, err := w.Share(ctx, w.admin, "ours", backendai.ReadOnly, []string{"alice@example.org"}); err != nil {
		t.Fatal(err)
	}
	if p := effective(); p != backendai.ReadOnly {
		t.Errorf("the member has %s after the share", p)
	}
	if _, err := w.Unshare(ctx, w.admin, "ours", []string{"alice@example.org"}); err != nil {
		t.Fatal(err)
	}
	if p := effective(); p != backendai.ReadWrite {
		t.Errorf("the member has %s after the share ended", p)
	}
	wantCode(t, "a member leaves", w.Leave(ctx, w.alice, "ours", ""), backendai.CodeInvalidParams)
}
