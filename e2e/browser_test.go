//go:build integration

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// tab is a page of a headless Chromium that has a profile of its own.
type tab struct {
	t   testing.TB
	ctx context.Context
}

func browser(t testing.TB) tab {
	t.Helper()
	ctx, cancel := chromedp.NewExecAllocator(t.Context(),
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1200, 800),
	)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancel() })
	return tab{t, ctx}
}

// do takes steps on the page.
func (b tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	for i, step := range steps {
		if _, err := run(b, step); err != nil {
			text, silent := run(b, chromedp.Evaluate[string](`document.readyState + ': ' + document.body.innerText + (window.term ? `+wholeText+`.slice(-800) : '')`))
			if silent != nil {
				b.t.Fatalf("step %d: %v; the page does not say what it shows: %v", i, err, silent)
			}
			b.t.Fatalf("step %d: %v; the page shows %q", i, err, text[:min(800, len(text))])
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

// until waits for a condition on the page. It asks by the clock: a page that nobody
// sees need not draw anything.
func until(condition string) chromedp.Action[chromedp.Void] {
	return chromedp.Poll[chromedp.Void](condition, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(patience-10*time.Second))
}

// wholeText reads what the terminal on the page has, scrollback and screen, with
// lines that were only wrapped put together.
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

// typed presses keys as a keyboard does.
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

// screenshot keeps a picture of the page with what the test run leaves, if it
// was asked to leave anything ("go test -artifacts").
func (b tab) screenshot(name string) {
	b.t.Helper()
	picture, err := run(b, chromedp.CaptureScreenshot())
	if err != nil || len(picture) < 1000 {
		b.t.Errorf("a screenshot of %d bytes: %v", len(picture), err)
	}
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), picture, 0o600); err != nil {
		b.t.Error(err)
	}
}
