package api_test

import (
	"context"
	"strings"
	"testing"

	"backendai"
)

// sshKeys are the SSH keys of the scripted accounts, by access key.
type sshKeys map[string][2]string

func (a *accounts) SSHKeypair(_ context.Context, caller backendai.Caller) (public, private string, err error) {
	pair := a.ssh[caller.Keypair.AccessKey]
	return pair[0], pair[1], nil
}

func (a *accounts) SetSSHKeypair(_ context.Context, caller backendai.Caller, public, private string) error {
	if public == "bad" {
		return backendai.Errorf(backendai.CodeInvalidParams, "the public key is not usable")
	}
	a.ssh[caller.Keypair.AccessKey] = [2]string{public, private}
	return nil
}

func (a *accounts) NewSSHKeypair(ctx context.Context, caller backendai.Caller) (public, private string, err error) {
	return "new public", "new private", a.SetSSHKeypair(ctx, caller, "new public", "new private")
}

func TestSSHKeypair(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct{ user, method, target, body, want string }{
		{"alice", "GET", "/auth/ssh-keypair", ``, `{"ssh_public_key":""}`},
		{"alice", "PATCH", "/auth/ssh-keypair", ``, `{"ssh_public_key":"new public","ssh_private_key":"new private"}`},
		{"alice", "GET", "/auth/ssh-keypair", ``, `{"ssh_public_key":"new public"}`},
		{"alice", "POST", "/auth/ssh-keypair", `{"pubkey":"my public","privkey":"my private"}`, `{"ssh_public_key":"my public","ssh_private_key":"my private"}`},
		{"alice", "GET", "/auth/ssh-keypair", ``, `{"ssh_public_key":"my public"}`},
		{"stranger", "GET", "/auth/ssh-keypair", ``, `{"ssh_public_key":""}`},
		{"admin", "GET", "/auth/ssh-keypair?owner_access_key=AKIAalice", ``, `{"ssh_public_key":"my public"}`},
	} {
		resp, text := w.call(step.user, step.method, step.target, step.body)
		if resp.StatusCode != 200 || text != step.want {
			t.Errorf("%s %s: %d %s", step.method, step.target, resp.StatusCode, text)
		}
		if got := resp.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s %s: Cache-Control is %q", step.method, step.target, got)
		}
	}
	w.problem("alice", "POST", "/auth/ssh-keypair", `{"pubkey":"bad","privkey":"x"}`, 400, "invalid-api-params")
	w.problem("stranger", "PATCH", "/auth/ssh-keypair?owner_access_key=AKIAalice", ``, 403, "generic-forbidden")
	p := w.problem("alice", "POST", "/auth/ssh-keypair", `{"pubkey":"x"}`, 400, "invalid-api-params")
	if !strings.Contains(p.Title, "privkey") {
		t.Error(p.Title)
	}
}
