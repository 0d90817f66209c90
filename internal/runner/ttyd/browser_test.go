//go:build integration

package ttyd

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// tab is a page of a headless Chromium that has a profile of its own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// patience is how long one step in the browser may take.
const patience = 60 * time.Second

func browser(t *testing.T) tab {
	t.Helper()
	if len(loadPage()) == 0 {
		t.Fatal("the page is not built: run `make build` first")
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(),
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1000, 640),
	)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	b := tab{t, ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			switch {
			case m.Exception != nil:
				t.Errorf("the page threw: %s", m.Text)
			case !strings.Contains(m.Text, "GL Driver Message"):
				t.Logf("console: %s: %s", m.Type, m.Text)
			}
		}
	}()
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancel(); <-done })
	return b
}

// do takes steps on the page.
func (b tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	for i, step := range steps {
		if _, err := run(b, step); err != nil {
			text, _ := run(b, chromedp.Evaluate[string](wholeText))
			b.t.Fatalf("step %d: %v; the terminal shows %q", i, err, text[max(0, len(text)-600):])
		}
	}
}

func run[T any](b tab, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, action)
}

// value reads a value off the page.
func value[T any](b tab, expression string, options ...chromedp.EvaluateOption) T {
	b.t.Helper()
	v, err := run(b, chromedp.Evaluate[T](expression, options...))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for a condition on the page.
func until(condition string) chromedp.Action[chromedp.Void] {
	return chromedp.Poll[chromedp.Void](condition, chromedp.WithPollingTimeout(patience/2))
}

// wholeText reads what the terminal has, scrollback and screen, with lines
// that were only wrapped put together.
const wholeText = `(() => {
	const buffer = term.buffer.active, lines = [];
	for (let i = 0; i < buffer.length; i++) {
		const line = buffer.getLine(i), text = line.translateToString(true);
		if (line.isWrapped) lines[lines.length - 1] += text; else lines.push(text);
	}
	return lines.join('\n').trimEnd();
})()`

// shows waits until the terminal has the text.
func shows(text string) chromedp.Action[chromedp.Void] {
	return until("window.term && " + wholeText + `.includes(` + strconv.Quote(text) + `)`)
}

// typed presses keys as a keyboard does: what a key writes is part of its
// going down, so that a page which handles that gets it only once.
func typed(text string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, char := range text {
			down := input.DispatchKeyEventParams{
				Type: input.DispatchKeyEventTypeKeyDown, Text: string(char), UnmodifiedText: string(char), Key: string(char),
			}
			if char == '\r' {
				down.Key, down.Code, down.WindowsVirtualKeyCode = "Enter", "Enter", 13
			}
			up := down
			up.Type, up.Text = input.DispatchKeyEventTypeKeyUp, ""
			for _, event := range []input.DispatchKeyEventParams{down, up} {
				if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, event); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// pasted puts text in at once, as an input method or a paste does.
func pasted(text string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
		return err
	})
}

func (r *running) url(query string) string {
	_, port, _ := strings.Cut(r.addr, ":")
	return "http://localhost:" + port + "/" + query
}

// cutAll breaks every WebSocket as a broken network would.
func (r *running) cutAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.terminals {
		t.mu.Lock()
		for v := range t.viewers {
			go v.conn.CloseNow()
		}
		t.mu.Unlock()
	}
}

func TestBrowserTypesAndReads(t *testing.T) {
	r := serve(t, "/bin/sh")
	b := browser(t)
	b.do(chromedp.Navigate(r.url("")), shows("ready>"),
		typed("echo $((6*7)) $TERM; stty size\r"), shows("42 xterm-256color\n"),
		typed(`printf '\033]0;the title\007'`+"\r"), until(`document.title === 'the title'`),
		pasted("echo 'Grüße 你好 👩‍👩‍👧 🇰🇷 é' | cat; printf '\\033[1;32mbold\\033[0m \\033[38;2;255;100;0mtrue colour\\033[0m https://example.org\\n'"), typed("\r"),
		shows("\nGrüße 你好 👩‍👩‍👧 🇰🇷 é\nbold true colour"))
	if foreign := value[[]string](b, `performance.getEntriesByType('resource').map((e) => e.name)
		.filter((n) => !n.startsWith(location.origin) && !n.startsWith('blob:') && !n.startsWith('data:'))`); len(foreign) != 0 {
		t.Errorf("the page asked outside: %v", foreign)
	}
	cols := value[int](b, `term.cols`)
	if info := r.Terminals()[0]; info.Cols != cols || cols < 90 {
		t.Errorf("page has %d columns, the terminal %d", cols, info.Cols)
	}
	b.do(chromedp.KeyEvent("F", chromedp.KeyModifiers(chromedp.ModifierCtrl, chromedp.ModifierShift)),
		until(`!document.querySelector('#search').hidden`),
		chromedp.SendKeys(chromedp.CSS(`#search input`), "colour"),
		until(`document.querySelector('#search output').value.includes('/')`))
	screenshot(b)
	b.do(chromedp.SendKeys(chromedp.CSS(`#search input`), kb.Escape),
		typed("exit 5\r"), shows("[the shell ended: exit code 5"),
		until(`!document.querySelector('#status').hidden`), typed("\r"),
		until(`document.querySelector('#status').hidden`), typed("echo ag''ain\r"), shows("\nagain\n"))
}

// screenshot is kept where BROWSER_SCREENSHOT says, for people to look at.
func screenshot(b tab) {
	b.t.Helper()
	picture, err := run(b, chromedp.CaptureScreenshot())
	if err != nil || len(picture) < 1000 {
		b.t.Errorf("a screenshot of %d bytes: %v", len(picture), err)
	}
	if path := os.Getenv("BROWSER_SCREENSHOT"); path != "" {
		if err := os.WriteFile(path, picture, 0o600); err != nil {
			b.t.Error(err)
		}
	}
}

func TestBrowserReloadsInAFlood(t *testing.T) {
	const last = 600_000
	r := serve(t, fmt.Sprintf("stty -echo; echo go; read go; seq -f %%020.0f 1 %d | cat; echo END; read x", last))
	b := browser(t)
	b.do(chromedp.Navigate(r.url("?session=flood")), shows("go"), typed("\r"))
	for _, line := range []int{20_000, 60_000, 120_000} {
		b.do(until(fmt.Sprintf(`window.term && %s.split('\n').at(-2) > '%020d'`, wholeText, line)), chromedp.Reload())
	}
	r.cutAll()
	b.do(shows("\nEND"))
	body := strings.TrimSuffix(value[string](b, wholeText), "\nEND")
	want := strings.ReplaceAll(string(lines(1, last, 20)), "\r\n", "\n")
	if !strings.HasSuffix(want, body+"\n") || strings.Count(body, "\n") < 9_990 {
		t.Errorf("the page has %d lines, from %.40q to %.40q", strings.Count(body, "\n"), body, body[max(0, len(body)-40):])
	}
}

func TestBrowserComesBack(t *testing.T) {
	r := serve(t, "/bin/sh")
	b := browser(t)
	b.do(chromedp.Navigate(r.url("")), shows("ready>"), typed("x=kept; echo bef''ore\r"), shows("before"))
	pid := r.Terminals()[0].PID
	for i := range 5 {
		r.cutAll()
		b.do(typed(fmt.Sprintf("echo $x aft''er %d\r", i)), shows(fmt.Sprintf("kept after %d", i)))
	}
	// A reload of the tab is the same terminal.
	b.do(chromedp.Reload(), shows("kept after 4"), typed("echo $x st''ill\r"), shows("kept still"))
	if list := r.Terminals(); len(list) != 1 || list[0].PID != pid {
		t.Errorf("terminals %+v", list)
	}
	// Another page is another terminal.
	ctx, cancel := chromedp.NewContext(b.ctx)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of its first step
		t.Fatal(err)
	}
	tab{t, ctx}.do(chromedp.Navigate(r.url("")), shows("ready>"))
	if list := r.Terminals(); len(list) != 2 {
		t.Errorf("terminals %+v", list)
	}
}

// TestBrowserAnswersOnce has a program ask the terminal what it is; the
// question must not be answered again when it is replayed.
func TestBrowserAnswersOnce(t *testing.T) {
	r := serve(t, `stty raw -echo; printf '\033[c'; echo asked; while :; do dd bs=1 count=1 2>/dev/null | od -An -c; done`)
	b := browser(t)
	for range 3 {
		b.do(chromedp.Navigate(r.url("?session=ask")), shows("asked"), typed("#"), shows("#"))
	}
	b.do(typed("!"), shows("!"))
	if text := value[string](b, wholeText); strings.Count(text, "033") > 1 {
		t.Errorf("answers were typed into the program: %q", text)
	}
}

func TestBrowserModesSurviveAReload(t *testing.T) {
	r := serve(t, `stty raw -echo; printf '\033[?1049h\033[?2004h\033[?1003h\033[?1006h\033[2;3Hfull screen'; read x`)
	b := browser(t)
	for range 2 {
		b.do(chromedp.Navigate(r.url("?session=full")), shows("full screen"),
			until(`term.buffer.active.type === 'alternate' && term.modes.bracketedPasteMode && term.modes.mouseTrackingMode === 'any'`))
	}
}

// TestForeignPageCannotType opens the terminal's WebSocket from a page of another origin.
func TestForeignPageCannotType(t *testing.T) {
	r := serve(t, "/bin/sh")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<!doctype html><title>evil</title>"))
	}))
	defer evil.Close()
	b := browser(t)
	b.do(chromedp.Navigate(evil.URL))
	if answer := value[string](b, `new Promise((done) => {
		const socket = new WebSocket(`+strconv.Quote("ws"+strings.TrimPrefix(r.url("ws"), "http"))+`, ['tty']);
		socket.onopen = () => done('open');
		socket.onerror = () => done('refused');
	})`, chromedp.EvalAwaitPromise); answer != "refused" {
		t.Errorf("the foreign page's WebSocket: %s", answer)
	}
	if answer := value[string](b, `fetch(`+strconv.Quote(r.url("token"))+`).then((r) => r.text(), () => 'refused')`, chromedp.EvalAwaitPromise); answer != "refused" {
		t.Errorf("the foreign page read %q", answer)
	}
	if list := r.Terminals(); len(list) != 0 {
		t.Errorf("the foreign page opened %v", list)
	}
}
