//go:build integration

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// trace is something that a server, or one of its sessions, has on the machine
// outside its state directory.
type trace struct{ kind, name string }

func (t trace) String() string { return t.kind + " " + t.name }

var uuidRE = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// key is in every name that the server's engine gives to something on the machine.
func (p *platform) key() (string, error) {
	state, err := filepath.EvalSymlinks(filepath.Join(p.dir, "server", "engine"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:4]), nil
}

// traces looks for processes, mounts, control groups, links, tables of the
// packet filter and run-time files of the server.
func (p *platform) traces() (list []trace, err error) {
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	mounts := map[string]bool{}
	for _, d := range processes {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		// Processes and threads end while we look.
		if groups, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cgroup")); err == nil && strings.Contains(string(groups), key) {
			command, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
			list = append(list, trace{"process", fmt.Sprintf("%d %q in %s", pid, command, lastField(string(groups)))})
		}
		if table, err := os.ReadFile(filepath.Join("/proc", d.Name(), "mountinfo")); err == nil {
			for line := range strings.Lines(string(table)) {
				if strings.Contains(line, p.dir+"/") || strings.Contains(line, "/run/backend.ai/"+key) {
					mounts[strings.TrimSpace(line)] = true
				}
			}
		}
	}
	for line := range mounts {
		list = append(list, trace{"mount", line})
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() && strings.Contains(path, key) {
			list = append(list, trace{"cgroup", path})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // other servers change theirs
		links, err = netlink.LinkList()
	}
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if strings.Contains(l.Attrs().Name, key) {
			list = append(list, trace{"link", l.Attrs().Name})
		}
	}
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		if strings.Contains(table.Name, key) {
			list = append(list, trace{"table", table.Name})
		}
	}
	if _, err := os.Stat("/run/backend.ai/" + key); err == nil {
		list = append(list, trace{"folder", "/run/backend.ai/" + key})
	}
	return list, nil
}

func lastField(text string) string {
	fields := strings.Split(strings.TrimSpace(text), ":")
	return fields[len(fields)-1]
}

// folders lists the folders that the engine keeps for sessions.
func (p *platform) folders() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(p.dir, "server", "engine", "sessions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// nothingLeft fails for everything on the machine that belongs to a session
// which is no more, while the server runs.
func (p *platform) nothingLeft(t testing.TB) {
	t.Helper()
	live := map[string]bool{}
	for _, id := range strings.Fields(p.admin.must(t, "ps", "-f", "session_id", "--plain")) {
		live[id] = true
	}
	folders, err := p.folders()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range folders {
		if !live[name] {
			t.Errorf("the folder of a session is left: %s", name)
		}
	}
	list, err := p.traces()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("a running server was not found on the machine")
	}
	for _, one := range list {
		// Ids of sessions are UUIDs; what has none in its name belongs to the server.
		if id := uuidRE.FindString(one.name); id != "" && !live[id] {
			t.Errorf("of a session that is no more there is left: %s", one)
		}
	}
}
