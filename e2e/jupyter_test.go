//go:build integration

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
)

// TestJupyterInTheBrowser is the main road: a notebook that computes.
func TestJupyterInTheBrowser(t *testing.T) {
	u := shared.addUser(t, "notebook")
	r := u.run(t, "start", "-t", "jupyter-1", "python")
	t.Cleanup(func() { u.remove(t, "jupyter-1") })
	if r.code != 0 || !strings.Contains(r.errs, "sshd, ttyd, jupyter") {
		t.Fatalf("start: %v", r)
	}
	port := u.app(t, "jupyter-1", "jupyter")
	b := browser(t)
	// localhost as the README says, which may be IPv6 first.
	b.do(chromedp.Navigate("http://localhost:"+port+"/"), until(`document.querySelector('#new-dropdown-button, #new-buttons')`))
	path := value[string](b, `(async () => {
		const xsrf = document.cookie.match(/_xsrf=([^;]*)/)[1];
		const reply = await fetch('/api/contents', {method: 'POST', headers: {'X-XSRFToken': xsrf, 'Content-Type': 'application/json'},
			body: JSON.stringify({type: 'notebook'})});
		return (await reply.json()).path;
	})()`, chromedp.EvalAwaitPromise)
	b.do(
		chromedp.Navigate("http://localhost:"+port+"/notebooks/"+path),
		until(`window.Jupyter && Jupyter.notebook && Jupyter.notebook.kernel && Jupyter.notebook.kernel.is_connected()`),
		chromedp.Click(chromedp.CSS(`.cell .CodeMirror`)),
		chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, input.InsertText, input.InsertTextParams{Text: "print(6*7)"})
			return err
		}),
		chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierShift)),
		until(`document.querySelector('.output_text')`),
	)
	if text := strings.TrimSpace(value[string](b, `document.querySelector('.output_text').innerText`)); text != "42" {
		t.Errorf("the cell printed %q", text)
	}

	// A second session of the same user has no way to this Jupyter.
	u.start(t, "jupyter-2", "python")
	addresses := strings.Fields(u.inside(t, "jupyter-1", "python3 -c 'import socket; print(\"127.0.0.1\", *{i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None)})'; "+
		"cat /proc/net/fib_trie | grep -oE '[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+' | sort -u").out)
	addresses = append(addresses, "jupyter-1", "main1", "localhost", "::1")
	if len(addresses) < 6 {
		t.Fatalf("too few addresses to try: %v", addresses)
	}
	addresses = append(addresses, hostAddresses(t)...)
	const attack = `
import concurrent.futures, socket, sys
def reach(target):
    address, port = target
    try:
        with socket.create_connection((address, int(port)), 1) as s:
            s.settimeout(2)
            s.sendall(b"GET /api HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = s.recv(4096) + s.recv(4096)
    except OSError:
        return
    if b"Tornado" in answer or b"version" in answer:  # other things may answer, outside
        print("REACHED", address, port)
targets = [(a, p) for a in sys.argv[2:] for p in ("8080", sys.argv[1])]
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(reach, targets))
print("tried", len(targets))
`
	r = u.exec(t, attack, append([]string{program, "ssh", "jupyter-2", "timeout", "60", "python3", "-", port}, addresses...)...)
	if r.out != fmt.Sprintf("tried %d\n", 2*len(addresses)) {
		t.Errorf("from the second session: %v", r)
	}
	// The first one is still there, for its owner only.
	resp, err := http.Get("http://127.0.0.1:" + port + "/api")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("Jupyter after that: %v, %v", resp, err)
	}
	if err == nil {
		resp.Body.Close()
	}
	stranger := shared.addUser(t, "stranger")
	if r := stranger.run(t, "app", "-b", "0", "jupyter-1", "jupyter"); r.code == 0 || !strings.Contains(r.errs, "jupyter-1") {
		t.Errorf("a stranger's app: %v", r)
	}
}

// hostAddresses are the addresses of this machine, but for those of other
// servers' bridges, which come and go.
func hostAddresses(t *testing.T) (list []string) {
	t.Helper()
	key, err := shared.key()
	if err != nil {
		t.Fatal(err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if other, ok := strings.CutPrefix(link.Name, "bai-"); ok && other != key {
			continue
		}
		addrs, err := link.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
				list = append(list, n.IP.String())
			}
		}
	}
	return list
}

// TestSeedCommands runs the two commands as they are written, on their port.
func TestSeedCommands(t *testing.T) {
	u := shared.admin
	t.Cleanup(func() { u.remove(t, "mysession") })
	started := u.run(t, "start", "-t", "mysession", "python")
	if started.code != 0 {
		t.Fatalf("start: %v", started)
	}
	cmd := exec.Command(program, "app", "-b", "9900", "mysession", "jupyter")
	cmd.Env = u.env
	errs := &lockedBuffer{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	defer func() { _ = cmd.Process.Kill(); <-done }()
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]"} {
		r := u.exec(t, "", "curl", "-fsS", "--retry", "40", "--retry-connrefused", "--retry-delay", "1", "http://"+host+":9900/api")
		if host == "[::1]" && strings.Contains(r.errs, "assign requested address") {
			continue // the machine has no IPv6
		}
		if r.code != 0 || !strings.Contains(r.out, "version") {
			t.Errorf("%s: %v\n%s", host, r, errs.tail(2000))
		}
	}
	if !strings.Contains(errs.tail(2000), "http://127.0.0.1:9900") {
		t.Errorf("app printed %q", errs.tail(2000))
	}
	// The README shows what is printed.
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "```console\n")
	shown, _, _ = strings.Cut(shown, "```")
	printed := "$ backend.ai start -t mysession python\n" + started.errs + "$ backend.ai app -b 9900 mysession jupyter\n" + errs.tail(2000)
	if diff := cmp.Diff(uuidRE.ReplaceAllString(printed, "ID"), uuidRE.ReplaceAllString(shown, "ID")); diff != "" {
		t.Errorf("README.md shows something else (-printed +shown):\n%s", diff)
	}
	// The port is taken now: a second app says so at once.
	if r := u.run(t, "app", "-b", "9900", "mysession", "jupyter"); r.code != 1 || !strings.Contains(r.errs, "9900") || r.took > 5*time.Second {
		t.Errorf("a taken port: %v", r)
	}
	start := time.Now()
	_ = cmd.Process.Signal(os.Interrupt)
	<-done
	if took := time.Since(start); took > time.Second {
		t.Errorf("Ctrl+C took %s", took)
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if cmd.ProcessState.ExitCode() != 130 && !(status.Signaled() && status.Signal() == syscall.SIGINT) {
		t.Errorf("Ctrl+C gave %v", cmd.ProcessState)
	}
	if l, err := net.Listen("tcp", "127.0.0.1:9900"); err != nil {
		t.Errorf("the port is not free again: %v", err)
	} else {
		l.Close()
	}
}
