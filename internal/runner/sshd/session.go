//go:build linux

package sshd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"backendai/internal/runner/process"
	"backendai/internal/runner/sshd/sftp"
)

const (
	maxEnv       = 64       // variables that one channel may set
	maxEnvLength = 32 << 10 // bytes of one of them

	exitNotFound = 127 // what shells say of a command that is not there
)

// accepted are the variables that a client may send; a trailing * is any end.
var accepted = []string{
	"LANG", "LANGUAGE", "LC_*", "TZ", "COLORTERM", "NO_COLOR", "TERM_PROGRAM", "TERM_PROGRAM_VERSION",
	"GIT_PROTOCOL", "GIT_AUTHOR_*", "GIT_COMMITTER_*",
}

// session is one session channel: a shell, a command or a subsystem.
type session struct {
	conn *connection
	ch   ssh.Channel

	env     map[string]string
	pty     *terminal
	x11     *display
	started bool
	program *program       // nil until a process runs
	wg      sync.WaitGroup // what serves the started program or subsystem
}

// serveSession handles a session channel until the client has closed it.
func (c *connection) serveSession(ctx context.Context, nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	s := &session{conn: c, ch: ch, env: map[string]string{}}
	defer s.end()
	for r := range requests {
		ok := s.request(ctx, r)
		answer(r, ok, nil)
		if ok {
			s.begin(r)
		}
	}
}

// end releases everything after the client has gone.
func (s *session) end() {
	if s.program != nil {
		s.program.hangUp()
	}
	if s.pty != nil {
		s.pty.close()
	}
	s.wg.Wait()
	if s.x11 != nil {
		s.x11.close()
	}
}

// request applies a request (RFC 4254 section 6) and says whether it succeeds.
// What starts a program only does so in begin, after the answer: a client must
// not see output before it.
func (s *session) request(ctx context.Context, r *ssh.Request) bool {
	switch r.Type {
	case "env":
		return s.setEnv(r.Payload)
	case "pty-req":
		return s.openPTY(r.Payload)
	case "window-change":
		return s.pty != nil && s.pty.resize(r.Payload) == nil
	case "x11-req":
		return s.openX11(ctx, r.Payload)
	case "auth-agent-req@openssh.com":
		return s.openAgent(ctx)
	case "shell", "exec":
		return s.claim(r.Type == "shell" || validString(r.Payload))
	case "subsystem":
		return s.claim(subsystem(r.Payload) == "sftp")
	case "signal":
		return s.signal(r.Payload)
	case "break":
		return s.pty != nil // a pseudo-terminal has no line to hold low
	case "eow@openssh.com":
		if s.program != nil {
			s.program.stopOutput()
		}
		return s.program != nil
	case "keepalive@openssh.com":
		return true
	default:
		return false
	}
}

// claim takes the channel's only chance to start something.
func (s *session) claim(ok bool) bool {
	if !ok || s.started {
		return false
	}
	s.started = true
	return true
}

func validString(payload []byte) bool {
	var text struct{ Value string }
	return ssh.Unmarshal(payload, &text) == nil
}

func subsystem(payload []byte) string {
	var text struct{ Value string }
	if ssh.Unmarshal(payload, &text) != nil {
		return ""
	}
	return text.Value
}

// begin starts what a successful shell, exec or subsystem request asks for.
func (s *session) begin(r *ssh.Request) {
	var asked struct{ Command string }
	switch r.Type {
	case "exec", "subsystem":
		_ = ssh.Unmarshal(r.Payload, &asked) // request has looked at it
	case "shell":
	default:
		return
	}
	command, login := asked.Command, r.Type == "shell"
	sftpAsked := r.Type == "subsystem"
	if s.conn.grant.forced {
		s.env["SSH_ORIGINAL_COMMAND"] = command
		command, login = s.conn.grant.command, false
		sftpAsked = command == "internal-sftp" || strings.HasPrefix(command, "internal-sftp ")
	}
	if sftpAsked {
		s.wg.Go(s.serveSFTP)
		return
	}
	if err := s.startProgram(command, login); err != nil {
		s.conn.log.Info("ssh command did not start", "err", err)
		s.wg.Go(func() { s.fail(err) })
	}
}

// fail tells the user why nothing runs, as a shell would.
func (s *session) fail(err error) {
	message := err.Error()
	if errors.Is(err, process.ErrNoShell) {
		message += "; files can be moved with sftp and scp"
	}
	ending := "\n"
	if s.pty != nil {
		ending = "\r\n"
	}
	_, _ = io.WriteString(s.ch.Stderr(), "backend.ai: "+message+ending) // the client may be gone
	s.exit(process.State{Code: exitNotFound})
}

// serveSFTP runs the subsystem in this process, where no start-up file of a
// shell can put a word into the stream.
func (s *session) serveSFTP() {
	state := process.State{}
	if err := sftp.Serve(s.ch, sftp.Options{Home: s.conn.server.opts.Home, Logger: s.conn.log}); err != nil {
		s.conn.log.Info("sftp ended", "err", err)
		state.Code = 1
	}
	s.exit(state)
}

// signalNames are those of RFC 4254 section 6.10 and what OpenSSH adds.
var signalNames = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP,
	"ILL": syscall.SIGILL, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE,
	"QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV, "TERM": syscall.SIGTERM,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "BUS": syscall.SIGBUS, "SYS": syscall.SIGSYS,
	"TRAP": syscall.SIGTRAP, "XCPU": syscall.SIGXCPU, "XFSZ": syscall.SIGXFSZ,
}

// nameSignal is the reverse; a signal without a name gets one in the form that
// the RFC reserves for local ones.
func nameSignal(sig syscall.Signal) string {
	for name, s := range signalNames {
		if s == sig {
			return name
		}
	}
	return fmt.Sprintf("%d@backend.ai", int(sig))
}

// exit sends how the program ended and closes the channel. Called once. The end
// of the output comes after how it ended: a client whose own input is over
// closes at once when it sees it, and would not hear more.
func (s *session) exit(state process.State) {
	// Each of these only fails when the client is gone.
	if state.Signal != 0 {
		_, _ = s.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name    string
			Core    bool
			Message string
			Lang    string
		}{nameSignal(state.Signal), state.Core, state.Signal.String(), ""}))
	} else {
		_, _ = s.ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, uint32(state.Code)))
	}
	_ = s.ch.CloseWrite()
	_ = s.ch.Close()
}

func (s *session) setEnv(payload []byte) bool {
	var pair struct{ Name, Value string }
	if ssh.Unmarshal(payload, &pair) != nil || s.started || len(s.env) >= maxEnv || len(pair.Value) > maxEnvLength {
		return false
	}
	if strings.ContainsAny(pair.Name, "=\x00") || strings.Contains(pair.Value, "\x00") {
		return false
	}
	for _, pattern := range accepted {
		if ok, _ := path.Match(pattern, pair.Name); ok {
			s.env[pair.Name] = pair.Value
			return true
		}
	}
	return false
}

func (s *session) signal(payload []byte) bool {
	var name struct{ Name string }
	if ssh.Unmarshal(payload, &name) != nil || s.program == nil {
		return false
	}
	sig, ok := signalNames[name.Name]
	if !ok {
		return false
	}
	if err := s.program.child.SignalGroup(sig); err != nil {
		s.conn.log.Info("forward signal", "err", err)
		return false
	}
	return true
}

func (s *session) openAgent(ctx context.Context) bool {
	if s.conn.grant.noAgent || s.started {
		return false
	}
	socket, err := s.conn.offerAgent(ctx)
	if err != nil {
		s.conn.log.Warn("agent forwarding refused", "err", err)
		return false
	}
	s.env["SSH_AUTH_SOCK"] = socket
	return true
}

// environment is what a process of this channel gets: the session's own, what
// the client sent, and what sshd(8) sets. MAIL is not among it.
func (s *session) environment(shell string) []string {
	opts := s.conn.server.opts
	env := maps.Clone(opts.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, s.env)
	env["PATH"] = searchPath(env)
	env["HOME"], env["USER"], env["LOGNAME"] = opts.Home, opts.User, opts.User
	env["SHELL"] = shell
	remoteHost, remotePort := hostPort(s.conn.ssh.RemoteAddr())
	localHost, localPort := hostPort(s.conn.ssh.LocalAddr())
	env["SSH_CLIENT"] = fmt.Sprintf("%s %s %s", remoteHost, remotePort, localPort)
	env["SSH_CONNECTION"] = fmt.Sprintf("%s %s %s %s", remoteHost, remotePort, localHost, localPort)
	delete(env, "TERM") // the session's own TERM is that of its web terminal
	if s.pty != nil {
		env["SSH_TTY"], env["TERM"] = s.pty.name(), s.pty.term
	}
	if s.x11 != nil {
		env["DISPLAY"], env["XAUTHORITY"] = s.x11.name, s.x11.authority
	}
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}

// searchPath is the session's PATH, or what login would set.
func searchPath(env map[string]string) string {
	if path := env["PATH"]; path != "" {
		return path
	}
	return "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
}

func hostPort(address net.Addr) (host, port string) {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return "UNKNOWN", "65535" // as OpenSSH says of a peer without an address
	}
	return host, port
}

// quiet tells whether the user does not want to be greeted (login(1)).
func (s *session) quiet() bool {
	_, err := os.Lstat(filepath.Join(s.conn.server.opts.Home, ".hushlogin"))
	return err == nil
}
