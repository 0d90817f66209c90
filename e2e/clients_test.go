//go:build integration

package e2e

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// clients are programs that use SSH. Each script sends the folder "sample" to
// the session as the folder "$NAME", and fetches that as "back". $PORT is where
// "app" leads to the session's sshd, $KEY the key of the session, $HOSTS a file
// with its host key and $FINGERPRINT that key's; $SSH is ssh with all that.
var clients = map[string]string{
	"ssh": `
		tar -C sample -c . | $SSH work@localhost "mkdir $NAME; tar -C $NAME -x"
		mkdir back; $SSH work@localhost "tar -C $NAME -c ." | tar -C back -x`,
	"scp": `
		scp -q -P $PORT -i $KEY -o UserKnownHostsFile=$HOSTS -r sample work@localhost:$NAME
		scp -q -P $PORT -i $KEY -o UserKnownHostsFile=$HOSTS -r work@localhost:$NAME back`,
	"scp-O": `
		scp -O -q -P $PORT -i $KEY -o UserKnownHostsFile=$HOSTS -r sample work@localhost:$NAME
		scp -O -q -P $PORT -i $KEY -o UserKnownHostsFile=$HOSTS -r work@localhost:$NAME back`,
	"sftp": `
		printf 'mkdir %s\nput -R sample/* %s\nget -R %s back\n' $NAME $NAME $NAME |
			sftp -q -b - -P $PORT -i $KEY -o UserKnownHostsFile=$HOSTS work@localhost`,
	"rsync": `
		rsync -a -e "$SSH" sample/ work@localhost:$NAME/
		test -z "$(rsync -ai --checksum -e "$SSH" sample/ work@localhost:$NAME/)" # nothing is left to send
		rsync -az -e "$SSH" work@localhost:$NAME/ back/`,
	"git": `
		$SSH work@localhost "git init -q --bare -b main $NAME.git"
		cd sample && git init -q -b main && git add . && git -c user.name=n -c user.email=e@example.org commit -q -m first
		GIT_SSH_COMMAND="$SSH" git push -q ssh://work@localhost/home/work/$NAME.git main && rm -r .git && cd ..
		GIT_SSH_COMMAND="$SSH" git clone -q ssh://work@localhost/~/$NAME.git back && rm -r back/.git
		$SSH work@localhost "git clone -q $NAME.git $NAME; rm -r $NAME/.git"`,
	"lftp": `
		lftp -c "set sftp:connect-program '$SSH -a -x'; set cmd:fail-exit yes; set net:max-retries 1
			open sftp://work:@localhost; mirror -R sample $NAME; mirror $NAME back"`,
	"rclone": `
		remote=":sftp,host=localhost,port=$PORT,user=work,key_file=$KEY,known_hosts_file=$HOSTS:"
		rclone --config "" copy sample "$remote$NAME"
		rclone --config "" check sample "$remote$NAME" 2>/dev/null
		rclone --config "" copy "$remote$NAME" back`,
	"sshfs": `
		mkdir mounted
		sshfs -p $PORT -o IdentityFile=$KEY -o UserKnownHostsFile=$HOSTS work@localhost: mounted
		trap 'fusermount3 -u mounted' EXIT
		cp -r sample mounted/$NAME
		cp -r mounted/$NAME back`,
	"psftp": `
		puttygen $KEY -o key.ppk -O private --new-passphrase /dev/null
		printf 'put -r sample %s\nget -r %s back\n' $NAME $NAME |
			psftp -batch -bc -i key.ppk -P $PORT -hostkey $FINGERPRINT work@localhost >/dev/null`,
	"plink": `
		puttygen $KEY -o key.ppk -O private --new-passphrase /dev/null
		plink="plink -batch -i key.ppk -P $PORT -hostkey $FINGERPRINT work@localhost"
		tar -C sample -c . | $plink "mkdir $NAME; tar -C $NAME -x"
		mkdir back; $plink "tar -C $NAME -c ." | tar -C back -x`,
	"paramiko": `
		/usr/bin/python3 - <<-'PYTHON'
		import os, paramiko
		env = os.environ
		client = paramiko.SSHClient()
		client.load_host_keys(env["HOSTS"])
		client.connect("localhost", int(env["PORT"]), "work", key_filename=env["KEY"], allow_agent=False, look_for_keys=False)
		sftp = client.open_sftp()
		for root, _, files in os.walk("sample"):
		    there, back = env["NAME"] + root[len("sample"):], "back" + root[len("sample"):]
		    sftp.mkdir(there)
		    os.mkdir(back)
		    for name in files:
		        sftp.put(root + "/" + name, there + "/" + name)
		        sftp.get(there + "/" + name, back + "/" + name)
		_, out, _ = client.exec_command("exit 9")
		assert out.channel.recv_exit_status() == 9
		PYTHON`,
	"ansible": `
		cat > play.yml <<-'PLAY'
		- hosts: all
		  gather_facts: true
		  tasks:
		    - copy: {src: sample/, dest: "~/{{ lookup('env', 'NAME') }}"}
		    - find: {paths: "~/{{ lookup('env', 'NAME') }}", recurse: true}
		      register: found
		    - fetch: {src: "{{ item.path }}", dest: "back/{{ item.path | relpath(ansible_env.HOME + '/' + lookup('env', 'NAME')) }}", flat: true}
		      loop: "{{ found.files }}"
		      loop_control: {label: "{{ item.path }}"}
		    - assert: {that: ansible_user_id == "work"}
		PLAY
		ANSIBLE_HOME=$PWD ANSIBLE_LOCAL_TEMP=$PWD ANSIBLE_SSH_ARGS="-o UserKnownHostsFile=$HOSTS -o ControlMaster=auto -o ControlPersist=5 -o ControlPath=$PWD/c" \
			ansible-playbook -i "localhost," -c ssh -e ansible_port=$PORT -e ansible_user=work -e ansible_ssh_private_key_file=$KEY \
			-e ansible_python_interpreter=/usr/bin/python3 play.yml >&2`,
}

// TestClients does a real transfer with each client, there and back, through
// "backend.ai app … sshd".
func TestClients(t *testing.T) {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Logf("sshfs is left out, for there is no FUSE here: %v", err)
		delete(clients, "sshfs")
	} else {
		f.Close()
	}
	u := shared.addUser(t, "sender")
	u.start(t, "mysess", "python")
	port := u.app(t, "mysess", "sshd")
	u.must(t, "download", "mysess", "id_container")
	key, hosts := filepath.Join(u.home, "id_container"), filepath.Join(u.home, "hosts")
	scan := u.exec(t, "", "ssh-keyscan", "-p", port, "localhost")
	if err := os.WriteFile(hosts, []byte(scan.out), 0o600); err != nil || scan.out == "" {
		t.Fatalf("%v, %v", scan, err)
	}
	fingerprint := ""
	for line := range strings.Lines(u.exec(t, "", "ssh-keygen", "-l", "-f", hosts).out) {
		if strings.Contains(line, "ED25519") {
			fingerprint = strings.Fields(line)[1]
		}
	}
	u.env = append(u.env, "PORT="+port, "KEY="+key, "HOSTS="+hosts, "FINGERPRINT="+fingerprint,
		"SSH=ssh -F none -p "+port+" -i "+key+" -o UserKnownHostsFile="+hosts+" -o StrictHostKeyChecking=yes -o BatchMode=yes")
	t.Run("all", func(t *testing.T) { // returns when all have
		for name, script := range clients {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				one := u
				one.home = t.TempDir()
				one.env = append(u.env[:len(u.env):len(u.env)], "NAME="+name)
				want := sample(t, filepath.Join(one.home, "sample"))
				if r := one.exec(t, "", "bash", "-euo", "pipefail", "-c", script); r.code != 0 {
					t.Fatalf("%v", r)
				}
				there := u.inside(t, "mysess", "cd "+name+" && find . -type f -print0 | sort -z | xargs -0 sha256sum").out
				if there != want {
					t.Errorf("in the session there is\n%s, not\n%s", there, want)
				}
				if back := sums(t, filepath.Join(one.home, "back")); back != want {
					t.Errorf("what came back is\n%s, not\n%s", back, want)
				}
			})
		}
	})
}

// sample makes a folder of files and gives their checksums.
func sample(t *testing.T, dir string) string {
	t.Helper()
	random := rand.NewChaCha8([32]byte{})
	for name, size := range map[string]int{"large": 6_000_001, "empty": 0, "with space": 1, "ümläut": 70_000, "deep/er/file": 32768} {
		path := filepath.Join(dir, name)
		data := make([]byte, size)
		_, _ = random.Read(data)
		if err := cmp.Or(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return sums(t, dir)
}

// sums lists the checksums of the files of a folder as sha256sum prints them.
func sums(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		lines = append(lines, fmt.Sprintf("%s  ./%s\n", hex.EncodeToString(sum[:]), strings.TrimPrefix(path, dir+"/")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	return strings.Join(lines, "")
}
