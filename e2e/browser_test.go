//go:build integration

package e2e

import (
	"context"
	"testing"
	"time"

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
			text, _ := run(b, chromedp.Evaluate[string](`document.body.innerText`))
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

// until waits for a condition on the page.
func until(condition string) chromedp.Action[chromedp.Void] {
	return chromedp.Poll[chromedp.Void](condition, chromedp.WithPollingTimeout(patience-10*time.Second))
}
