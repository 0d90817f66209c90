package session

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"backendai"
)

func testKeys(one *backendai.Session) (host, user string, authorized []string) {
	s := &Service{opts: Options{Derive: func(purpose, id string) []byte {
		sum := sha256.Sum256([]byte(purpose + id))
		return sum[:]
	}}}
	k := s.keys(one)
	return k.HostKeys[0], k.PrivateKey, k.AuthorizedKeys
}

func TestKeys(t *testing.T) {
	one := &backendai.Session{ID: "11111111-2222-4333-8444-555555555555", Name: "mysession", SSHPublicKey: "ssh-ed25519 AAAA alice\n"}
	host, user, authorized := testKeys(one)
	if host == user {
		t.Error("one key for two purposes")
	}
	host2, user2, _ := testKeys(one)
	if host != host2 || user != user2 {
		t.Error("the keys of a session change")
	}
	if other, _, _ := testKeys(&backendai.Session{ID: "other"}); other == host {
		t.Error("two sessions have one key")
	}
	if len(authorized) != 2 || authorized[1] != "ssh-ed25519 AAAA alice" {
		t.Errorf("authorized: %q", authorized)
	}
	raw, err := ssh.ParseRawPrivateKey([]byte(user))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	public, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(authorized[0]))
	if err != nil || comment != "work@mysession" || !bytes.Equal(public.Marshal(), signer.PublicKey().Marshal()) {
		t.Errorf("%q: %v", authorized[0], err)
	}
	hostSigner, err := ssh.ParsePrivateKey([]byte(host))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey([]byte(host))
	if err != nil {
		t.Fatal(err)
	}
	if line := publicLine(*key.(*ed25519.PrivateKey)); line+"\n" != string(ssh.MarshalAuthorizedKey(hostSigner.PublicKey())) {
		t.Errorf("public line %q", line)
	}
	one.SSHPublicKey = "ssh-ed25519 AAAA\nssh-ed25519 BBBB"
	if _, _, authorized := testKeys(one); len(authorized) != 1 {
		t.Errorf("two lines count as one key: %q", authorized)
	}
}

func TestOpenSSHReadsKeys(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	_, user, authorized := testKeys(&backendai.Session{ID: "x", Name: "mysession"})
	file := filepath.Join(t.TempDir(), "id_container")
	if err := os.WriteFile(file, []byte(user), 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := exec.CommandContext(t.Context(), keygen, "-y", "-f", file).Output()
	if err != nil || strings.TrimSpace(string(public)) != authorized[0] {
		t.Errorf("%q, want %q: %v", public, authorized[0], err)
	}
}

func TestEnviron(t *testing.T) {
	one := &backendai.Session{
		ID: "the-id", Name: "mysession", AccessKey: "AKIA", UserID: "user", UserEmail: "alice@example.org", UserName: "alice", Image: "localhost/python:3",
		Requested: backendai.Slots{"cpu": 1500}, PreopenPorts: []int{9000, 9001}, Mounts: []backendai.Mount{{Target: "/home/work/data"}, {Target: "/srv"}},
		Environ: map[string]string{"B": "user", "LANG": "de_DE.UTF-8", "NPROC": "7", "HOME": "/", "BACKENDAI_USER_UUID": "forged"},
	}
	image := backendai.Image{
		Env: []string{"PATH=/opt/bin:/bin", "A=image", "B=image", "HOME=/root", "NO VALUE", "X-Y=1"},
		Labels: map[string]string{
			"ai.backend.service-ports": "jupyter:http:8080,board:http:[6006,6007]", "ai.backend.envs.corecount": "OMP_NUM_THREADS, NPROC,HOME",
		},
	}
	want := map[string]string{
		"A": "image", "B": "user", "LANG": "de_DE.UTF-8", "TERM": "xterm", "HOME": "/home/work", "USER": "work", "LOGNAME": "work",
		"PATH": "/home/work/.local/bin:/opt/bin:/bin", "OMP_NUM_THREADS": "2", "NPROC": "7",
		"LOCAL_USER_ID": "1000", "LOCAL_GROUP_ID": "1000", "GPU_COUNT": "0", "N_GPUS": "0",
		"BACKENDAI_SESSION_ID": "the-id", "BACKENDAI_SESSION_NAME": "mysession", "BACKENDAI_KERNEL_ID": "the-id", "BACKENDAI_KERNEL_IMAGE": "localhost/python:3",
		"BACKENDAI_ACCESS_KEY": "AKIA", "BACKENDAI_USER_UUID": "user", "BACKENDAI_USER_EMAIL": "alice@example.org", "BACKENDAI_USER_NAME": "alice",
		"BACKENDAI_CLUSTER_ROLE": "main", "BACKENDAI_CLUSTER_IDX": "1", "BACKENDAI_CLUSTER_LOCAL_RANK": "0", "BACKENDAI_CLUSTER_HOST": "main1",
		"BACKENDAI_CLUSTER_HOSTS": "main1", "BACKENDAI_CLUSTER_SIZE": "1", "BACKENDAI_CLUSTER_REPLICAS": "main:1",
		"BACKENDAI_SERVICE_PORTS": "sshd:tcp:2200,ttyd:http:7681,9000:preopen:9000,9001:preopen:9001,jupyter:http:8080,board:http:[6006,6007]",
		"BACKENDAI_PREOPEN_PORTS": "9000,9001", "BACKENDAI_PERSISTENT_PATHS": "/home/work/data:/srv",
	}
	if diff := cmp.Diff(want, environ(one, image)); diff != "" {
		t.Error(diff)
	}
	one.Environ = map[string]string{"PATH": "/mine"}
	if got := environ(one, backendai.Image{})["PATH"]; got != "/mine" {
		t.Errorf("PATH=%s", got)
	}
	if got := environ(&backendai.Session{}, backendai.Image{})["PATH"]; got != "/home/work/.local/bin:"+defaultPath {
		t.Errorf("PATH=%s", got)
	}
}
