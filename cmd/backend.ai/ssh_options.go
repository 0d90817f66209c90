package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
)

const confSuffix = ".conf"

// hostRE is what may be the name of a host before its suffix: a session's name
// or id, or how one of them begins.
var hostRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// sshOption is one line of OpenSSH's configuration.
type sshOption struct{ name, value string }

// commonSSHOptions are those of every session. The host key is always checked,
// by nothing but the files of ours.
func (f *sshFolder) commonSSHOptions(proxy string) []sshOption {
	return []sshOption{
		{"User", "work"},
		{"ProxyCommand", proxy},
		{"StrictHostKeyChecking", "yes"},
		{"HostKeyAlgorithms", hostKeyType},
		{"GlobalKnownHostsFile", quoted(f.in("none"))},
		{"CheckHostIP", "no"},
		{"UpdateHostKeys", "no"},
	}
}

// sessionSSHOptions are those of one session.
func (f *sshFolder) sessionSSHOptions(s sshSession) []sshOption {
	options := []sshOption{
		{"HostKeyAlias", s.id},
		{"UserKnownHostsFile", quoted(f.in("sessions", s.id, knownHostsFile))},
	}
	if s.own {
		options = append(options, sshOption{"IdentityFile", quoted(f.in("sessions", s.id, identityFile))}, sshOption{"IdentitiesOnly", "yes"})
	}
	return options
}

func quoted(path string) string { return `"` + path + `"` }

// proxyCommand is the command line that leads an SSH client to a session, whose
// name may be a token of ssh. The names of hosts that ssh puts in are in quotes,
// and those with a quote are left to others by proxiedHosts.
func (e *env) proxyCommand(f *sshFolder, session string, options ...string) (string, error) {
	self, err := thisProgram()
	if err == nil {
		self, err = configPath(self)
	}
	if err != nil {
		return "", err
	}
	words := []string{self}
	if e.skipTLS {
		words = append(words, "--skip-sslcert-validation")
	}
	words = append(words, "ssh-proxy", "--dir", f.path)
	words = append(append(words, options...), "--", session)
	if runtime.GOOS != "windows" {
		for i, w := range words {
			if w == self || w == f.path || w == session {
				words[i] = "'" + w + "'"
			}
		}
	}
	return strings.Join(words, " "), nil
}

// thisProgram is where this program is: as it was called, if that is it, since
// a link outlives the version that it leads to.
func thisProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	called, err := exec.LookPath(os.Args[0])
	if err != nil {
		return self, nil
	}
	a, err := os.Stat(self)
	if err != nil {
		return self, nil
	}
	if b, err := os.Stat(called); err == nil && os.SameFile(a, b) {
		return called, nil
	}
	return self, nil
}

// proxiedHosts are patterns of the hosts that are sessions. They leave out
// names with which someone could make the shell that runs the proxy do
// something else (CVE-2023-51385).
func proxiedHosts() []string {
	bad := []string{"'"}
	if runtime.GOOS == "windows" {
		bad = strings.Split("&|<>^% ", "")
	}
	patterns := []string{"*" + hostSuffix}
	for _, b := range bad {
		patterns = append(patterns, "!*"+b+"*")
	}
	return patterns
}

// sshConfig is the configuration for all sessions: before each connection the
// program itself writes what belongs to the session of that name.
func (e *env) sshConfig(f *sshFolder) (string, error) {
	prepare, err := e.proxyCommand(f, "%n", "--prepare")
	if err != nil {
		return "", err
	}
	proxy, err := e.proxyCommand(f, "%n")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# For ssh NAME" + hostSuffix + ", by 'backend.ai ssh-config'; what is changed here will be overwritten.\n")
	fmt.Fprintf(&b, "Match originalhost \"%s\" exec \"%s\"\n  Include \"%s\"\n", strings.Join(proxiedHosts(), ","), prepare, f.in("hosts", "*"+confSuffix))
	b.WriteString("Host")
	for _, p := range proxiedHosts() {
		b.WriteString(" " + quoted(p))
	}
	b.WriteString("\n")
	// A session that could not be prepared has no host key: it is refused.
	writeSSHOptions(&b, append(f.commonSSHOptions(proxy), sshOption{"UserKnownHostsFile", quoted(f.in("none"))}))
	return b.String(), nil
}

// hostConfig is what belongs to one host of sshConfig.
func (f *sshFolder) hostConfig(host string, s sshSession) string {
	var b strings.Builder
	b.WriteString("Host " + host + hostSuffix + "\n")
	writeSSHOptions(&b, f.sessionSSHOptions(s))
	return b.String()
}

func writeSSHOptions(b *strings.Builder, options []sshOption) {
	for _, o := range options {
		fmt.Fprintf(b, "  %s %s\n", o.name, o.value)
	}
}

// sessionOptions are all options for one session.
func (e *env) sessionOptions(f *sshFolder, s sshSession) ([]sshOption, error) {
	proxy, err := e.proxyCommand(f, s.id)
	if err != nil {
		return nil, err
	}
	return append(f.commonSSHOptions(proxy), f.sessionSSHOptions(s)...), nil
}

// sessionOf is what a host, as it is given to ssh, says of a session.
func sessionOf(host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(host, "work@"), hostSuffix)
}
