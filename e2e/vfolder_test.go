//go:build integration

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a file in the user's home on this side.
func (u user) write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(u.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// says runs a command in a session, which must print exactly that.
func (u user) says(t testing.TB, session, command, want string) {
	t.Helper()
	if r := u.inside(t, session, command); r.code != 0 || strings.TrimSpace(r.out) != want {
		t.Errorf("%s: %v\nwant %q", command, r, want)
	}
}

// folderDir is the directory of a folder's files on the storage host.
func (p *platform) folderDir(t testing.TB, u user, name string) string {
	t.Helper()
	id := find(t, u.must(t, "--output", "json", "vfolder", "info", name), "id")
	return filepath.Join(p.dir, "server", "folders", id[:2], id[2:], "data")
}

// TestOwnKeys is the way of the manual: keys in a folder open every new session.
func TestOwnKeys(t *testing.T) {
	u := shared.addUser(t, "keys")
	if r := u.exec(t, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "mine"); r.code != 0 {
		t.Fatal(r)
	}
	public, err := os.ReadFile(filepath.Join(u.home, "mine.pub"))
	if err != nil {
		t.Fatal(err)
	}
	u.write(t, "authorized_keys", string(public), 0o666) // loose on purpose
	u.must(t, "vfolder", "create", ".ssh")
	u.must(t, "vfolder", "upload", ".ssh", "authorized_keys")
	dir := shared.folderDir(t, u, ".ssh")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	u.start(t, "opened", "base")
	port := u.app(t, "opened", "sshd")
	ssh := func(more ...string) result {
		args := []string{"ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-i", "mine", "-p", port, "work@localhost"}
		return u.exec(t, "", append(args, more...)...)
	}
	if r := ssh("stat -c '%a %U' .ssh .ssh/authorized_keys"); r.code != 0 || r.out != "700 work\n600 work\n" {
		t.Errorf("ssh with one's own key: %v", r)
	}
	if now, err := os.ReadFile(filepath.Join(dir, "authorized_keys")); err != nil || string(now) != string(public) {
		t.Errorf("the user's file was changed: %q, %v", now, err)
	}
	// What the session writes there stays for the next one.
	if r := ssh("echo Host x > .ssh/config"); r.code != 0 {
		t.Error(r)
	}
	u.must(t, "vfolder", "download", ".ssh", "config")
	if text, err := os.ReadFile(filepath.Join(u.home, "config")); err != nil || string(text) != "Host x\n" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestMounts: a folder belongs to the session's user whatever its owner on the
// host, under the paths and with the permissions that were asked for.
func TestMounts(t *testing.T) {
	u := shared.addUser(t, "mounts")
	u.must(t, "vfolder", "create", "my.data-1")
	u.must(t, "vfolder", "create", "2nd")
	u.must(t, "vfolder", "create", ".cache")
	u.write(t, "tree/sub/file", "content", 0o640)
	u.must(t, "vfolder", "upload", "-r", "my.data-1", "tree")
	u.start(t, "first", "base", "-m", "my.data-1", "-m", "2nd=/data")
	u.says(t, "first", "stat -c '%U %a' my.data-1/tree/sub/file; cat my.data-1/tree/sub/file", "work 640\ncontent")
	u.says(t, "first", "stat -c %U /data .cache my.data-1", "work\nwork\nwork")
	u.says(t, "first", "echo one > /data/from-first; mkdir -p my.data-1/made/in; ln -s /etc my.data-1/out; touch .cache/x; echo $BACKENDAI_PERSISTENT_PATHS | tr : '\\n' | sort | tr '\\n' ' '",
		"/data /home/work/.cache /home/work/my.data-1")
	// Another session sees it at once, and only what it may.
	u.start(t, "second", "base", "-m", "type=bind,source=2nd,perm=ro", "-m", "my.data-1/tree/sub")
	u.says(t, "second", "cat 2nd/from-first sub/file", "one\ncontent")
	u.says(t, "first", "echo two >> /data/from-first", "")
	u.says(t, "second", "cat 2nd/from-first; echo x 2>&- > 2nd/new || echo refused; ls -a sub | tr '\\n' ' '", "one\ntwo\nrefused\n. .. file")
	// Files of sessions and the commands for files speak of the same.
	u.must(t, "upload", "-r", "-d", "my.data-1", "first", "tree")
	if out := u.must(t, "vfolder", "ls", "my.data-1"); !strings.Contains(out, "made/") || !strings.Contains(out, "out@") {
		t.Errorf("ls: %s", out)
	}
	u.must(t, "download", "--dest", ".", "second", "2nd/from-first")
	if text, err := os.ReadFile(filepath.Join(u.home, "from-first")); err != nil || string(text) != "one\ntwo\n" {
		t.Errorf("%q, %v", text, err)
	}
	for _, c := range []struct{ args, want string }{
		{"-m nothing", `no such folder: "nothing"`}, {"-m my.data-1=/etc", "is reserved"}, {"-m my.data-1=/proc/x", "is reserved"}, {"-m my.data-1/none", "no such file"},
		{"-m my.data-1=x -m 2nd=x/y", "overlap"}, {"-m my.data-1/out", "leads out of the folder"}, {"-m my.data-1/..", "leads out"},
	} {
		if r := u.run(t, append(append([]string{"start", "-t", "never"}, strings.Fields(c.args)...), "base")...); r.code != 1 || !strings.Contains(r.errs, c.want) {
			t.Errorf("start %s: %v", c.args, r)
			u.remove(t, "never")
		}
	}
	u.must(t, "vfolder", "delete", "2nd")
	if r := u.run(t, "vfolder", "purge", "2nd"); r.code != 1 || !strings.Contains(r.errs, "is in use by") {
		t.Errorf("purge of a folder in use: %v", r)
	}
	u.says(t, "first", "cat /data/from-first", "one\ntwo")
	u.must(t, "rm", "first", "second")
	u.must(t, "vfolder", "purge", "2nd")
}

// TestHostileLinks: a session that turns a directory of a folder into a link to
// the host, and back, all the time, gets nothing of the host mounted.
func TestHostileLinks(t *testing.T) {
	u := shared.addUser(t, "links")
	u.must(t, "vfolder", "create", "data")
	u.start(t, "attacker", "base", "-m", "data")
	if r := u.inside(t, "attacker", "cd data && mkdir real && touch real/mine && (while :; do ln -sfn /etc sub; ln -sfn ../../.. sub; rm -f sub; mkdir sub; touch sub/mine; rm -rf sub; ln -s real sub; done) >/dev/null 2>&1 </dev/null & echo started"); r.code != 0 {
		t.Fatal(r)
	}
	mounted := 0
	for i := range 20 {
		name := fmt.Sprintf("victim%d", i)
		r := u.run(t, "start", "-t", name, "-m", "data/sub=sub", "base")
		if r.code == 0 {
			mounted++
			if out := u.inside(t, name, "ls sub"); strings.Contains(out.out, "passwd") || strings.Contains(out.out, "data") || strings.Contains(out.out, "upload") {
				t.Errorf("a link out of the folder was mounted: %v", out)
			}
		}
		u.remove(t, name)
		for _, args := range [][]string{{"vfolder", "ls", "data", "sub"}, {"vfolder", "download", "--overwrite", "data", "sub"}} {
			if r := u.run(t, args...); strings.Contains(r.out, "passwd") || strings.Contains(r.out, "session.json") {
				t.Errorf("%v: %v", args, r)
			}
		}
		if _, err := os.Stat(filepath.Join(u.home, "sub", "passwd")); err == nil {
			t.Error("a file of the host was downloaded")
		}
	}
	t.Logf("%d of 20 starts mounted something", mounted)
}

// TestFolderOfManyFiles: it takes no longer to start with a folder of very many
// files than with one of few, for nobody touches them.
func TestFolderOfManyFiles(t *testing.T) {
	u := shared.addUser(t, "many")
	u.must(t, "vfolder", "create", "many")
	dir := shared.folderDir(t, u, "many")
	for i := range 100 {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range 1000 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(j)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := os.ReadDir(dir); err != nil || len(out) != 100 {
		t.Fatal(len(out), err)
	}
	r := u.run(t, "start", "-t", "with", "-m", "many", "base")
	t.Cleanup(func() { u.remove(t, "with") })
	if r.code != 0 || r.took.Seconds() > 3 {
		t.Errorf("start: %v", r)
	}
	if out := u.must(t, "vfolder", "info", "many"); !strings.Contains(out, "- Number of files: 100000") {
		t.Errorf("info: %s", out)
	}
}
