//go:build integration

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestTerminalInTheBrowser types into a session's terminal through "app", and
// loses nothing of it: neither to reloads in the middle of a flood, nor to a
// server that is killed.
func TestTerminalInTheBrowser(t *testing.T) {
	u := shared.addUser(t, "typist")
	u.start(t, "typing", "python")
	port := u.app(t, "typing", "ttyd")
	b := browser(t)
	b.do(chromedp.Navigate("http://localhost:"+port+"/"), shows("$"),
		typed("echo $((6*7)) $0 $TERM; x=kept\r"), shows("42 /bin/bash xterm-256color"),
		typed(`printf '\033[1;32mGr\303\274\303\237e\033[0m \344\275\240\345\245\275 \360\237\220\263\n'`+"\r"), shows("\nGrüße 你好 🐳\n"))
	b.screenshot("terminal")
	if outside := value[[]string](b, `performance.getEntriesByType('resource').map((e) => e.name)
		.filter((n) => !n.startsWith(location.origin) && !n.startsWith('blob:') && !n.startsWith('data:'))`); len(outside) != 0 {
		t.Errorf("the page asked outside: %v", outside)
	}

	// A flood that is reloaded in its middle, thrice.
	const last = 400_000
	b.do(typed(fmt.Sprintf("clear; stty -echo; seq -f %%020.0f 1 %d | tee flood; echo END''OF FLOOD; stty echo\r", last)))
	for _, line := range []int{last / 20, last / 8, last / 4} {
		b.do(until(fmt.Sprintf(`window.term && %s.split('\n').at(-2) > '%020d'`, wholeText, line)), chromedp.Reload())
	}
	b.do(shows("ENDOF FLOOD\n"))
	text, _, _ := strings.Cut(value[string](b, wholeText), "\nENDOF FLOOD")
	lines := strings.Split(text, "\n")
	lines = lines[max(0, len(lines)-9900):]
	sent := u.inside(t, "typing", "tail -n 9900 flood; wc -l <flood").out
	if want := strings.Join(lines, "\n") + "\n" + strconv.Itoa(last) + "\n"; sent != want {
		t.Errorf("the page has %d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}

	// The server dies, and with it the way that the page has; another one comes.
	pid := regexp.MustCompile(`pid is (\d+)`)
	b.do(typed("clear; echo pid is $$\r"), until(wholeText+`.match(/pid is [0-9]+\n/)`))
	before := pid.FindString(value[string](b, wholeText))
	shared.kill()
	b.do(until(`getComputedStyle(document.querySelector('#status')).visibility === 'visible' && !document.querySelector('#status').hidden`)) // it says that it waits
	b.screenshot("away")
	if err := shared.boot(); err != nil {
		t.Fatal(err)
	}
	b.do(until(`document.querySelector('#status').hidden`), typed("echo $x, still pid is $$\r"), shows("\nkept, still "+before+"\n"))

	// It is listed, can be ended, and a new one is offered.
	if r := u.run(t, "terminals", "typing"); r.code != 0 || strings.Count(r.out, "bash") != 1 {
		t.Errorf("terminals: %v", r)
	}
	b.do(typed("exit 5\r"), shows("exit code 5"), until(`!document.querySelector('#status').hidden`), typed("\r"),
		until(`document.querySelector('#status').hidden`), typed("echo ag''ain\r"), shows("\nagain\n"))
}

// TestTerminalsAreShared opens one terminal in two windows.
func TestTerminalsAreShared(t *testing.T) {
	u := shared.addUser(t, "pair")
	u.start(t, "shared-one", "base")
	port := u.app(t, "shared-one", "ttyd")
	one, two := browser(t), browser(t)
	for _, b := range []tab{one, two} {
		b.do(chromedp.Navigate("http://localhost:"+port+"/?session=together"), shows("$"))
	}
	one.do(typed("echo from ''one\r"), shows("\nfrom one\n"))
	two.do(shows("\nfrom one\n"), typed("echo from ''two\r"))
	one.do(shows("\nfrom two\n"))
	if r := u.run(t, "terminals", "shared-one"); !strings.Contains(r.out, "together") {
		t.Errorf("terminals: %v", r)
	}
	u.must(t, "terminals", "shared-one", "--end", "together")
	for _, b := range []tab{one, two} {
		b.do(until(`!document.querySelector('#status').hidden`))
	}
	if r := u.run(t, "terminals", "shared-one"); strings.Contains(r.out, "together") {
		t.Errorf("terminals after its end: %v", r)
	}
}

// TestForeignPage is another web page that the user has open: it must neither
// see nor type into the terminal.
func TestForeignPage(t *testing.T) {
	u := shared.addUser(t, "victim")
	u.start(t, "victim-one", "python")
	port := u.app(t, "victim-one", "ttyd")
	jupyter := u.app(t, "victim-one", "jupyter")
	jupyterStart(t, jupyter)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<!doctype html><title>evil</title>")
	}))
	defer evil.Close()
	b := browser(t)
	b.do(chromedp.Navigate(evil.URL))
	for _, host := range []string{"localhost", "127.0.0.1"} {
		answer := value[string](b, fmt.Sprintf(`new Promise((done) => {
			const socket = new WebSocket('ws://%s:%s/ws', ['tty']);
			socket.onopen = () => { socket.send(new TextEncoder().encode('{"AuthToken":"","columns":80,"rows":24}')); socket.send(new TextEncoder().encode('0touch pwned\r')); };
			socket.onmessage = () => done('open');
			socket.onerror = () => done('refused');
			socket.onclose = () => done('refused');
		})`, host, port), chromedp.EvalAwaitPromise)
		if answer != "refused" {
			t.Errorf("the foreign page's WebSocket to %s is %s", host, answer)
		}
		for _, page := range []string{port + "/token", port + "/", jupyter + "/api/contents", jupyter + "/api/status"} {
			url := "http://" + host + ":" + page
			if got := value[string](b, fmt.Sprintf(`fetch(%q).then((r) => r.text(), () => 'refused')`, url), chromedp.EvalAwaitPromise); got != "refused" {
				t.Errorf("the foreign page read %s: %.80q", url, got)
			}
		}
		// Posts without reading the answer, as forms can.
		value[bool](b, fmt.Sprintf(`fetch('http://%s:%s/api/contents', {method: 'POST', mode: 'no-cors', body: '{"type":"notebook"}'}).then(() => true, () => true)`, host, jupyter), chromedp.EvalAwaitPromise)
	}
	// A name that an attacker makes lead here.
	for _, path := range []string{port + "/", port + "/token", jupyter + "/api/status"} {
		if r := u.exec(t, "", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: evil.example", "http://127.0.0.1:"+path); r.out != "403" {
			t.Errorf("%s under another name: %v", path, r)
		}
	}
	if r := u.run(t, "terminals", "victim-one"); strings.Contains(r.out, "bash") {
		t.Errorf("a terminal was opened: %v", r)
	}
	if r := u.inside(t, "victim-one", "ls"); strings.Contains(r.out, "pwned") || strings.Contains(r.out, "Untitled") {
		t.Errorf("the foreign page did something: %v", r)
	}
}

// TestTerminalOfSmallImages has ash, and no shell at all.
func TestTerminalOfSmallImages(t *testing.T) {
	shared.load(t, busybox(t), "localhost/busybox:1")
	shared.load(t, shellless(t), "localhost/shellless:1")
	u := shared.admin
	b := browser(t)
	for image, steps := range map[string][]chromedp.Action[chromedp.Void]{
		"busybox":   {shows("$"), typed("echo $((6*7)) $0\r"), shows("\n42 /bin/ash\n")},
		"shellless": {until(`window.term && /shell/.test(document.body.innerText + ` + wholeText + `)`)},
	} {
		u.start(t, "small-one", image)
		port := u.app(t, "small-one", "ttyd")
		b.do(append([]chromedp.Action[chromedp.Void]{chromedp.Navigate("http://localhost:" + port + "/")}, steps...)...)
		b.screenshot(image)
		u.must(t, "rm", "small-one")
	}
}
