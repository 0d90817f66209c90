package term_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai/internal/term"
)

// printer writes into texts, which are no terminals.
func printer() (p *term.Printer, out, errs *strings.Builder) {
	out, errs = &strings.Builder{}, &strings.Builder{}
	return term.New(out, errs, func(string) string { return "" }), out, errs
}

func check(t *testing.T, want, got string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMessages(t *testing.T) {
	p, out, errs := printer()
	p.Info("one %d", 1)
	p.Wait("two")
	p.Done("three\nfour")
	p.Warn("five")
	p.Fail("six \x1b[31mred\x1b[0m \u202eback")
	p.Line("seven\neight")
	check(t, "∙ one 1\n⋯ two\n✔ three\n  four\n∙ five\n✘ six [31mred[0m back\nseven eight\n", errs.String())
	check(t, "", out.String())
}

func TestQuiet(t *testing.T) {
	p, out, errs := printer()
	p.Quiet(true)
	p.Wait("waiting")
	p.Line("a line")
	bar := p.Progress()
	bar.Set("downloading", 1, 2)
	bar.Close()
	p.Info("told")
	if err := p.JSON(map[string]string{"a": "<b>"}); err != nil {
		t.Fatal(err)
	}
	check(t, "∙ told\n", errs.String())
	check(t, "{\n  \"a\": \"<b>\"\n}\n", out.String())
}

func TestTables(t *testing.T) {
	p, out, _ := printer()
	if err := p.Table([]string{"Name", "Value"}, [][]string{{"wide 漢字", "1"}, {"two\nlines", "x\x07y"}, {"", "end"}}); err != nil {
		t.Fatal(err)
	}
	check(t, "Name       Value\n---------  -----\nwide 漢字  1\ntwo        xy\nlines\n           end\n", out.String())
	out.Reset()
	if err := p.Plain([][]string{{"a", "b\nc"}, {"long", ""}}); err != nil {
		t.Fatal(err)
	}
	check(t, "a     b c\nlong\n", out.String())
	out.Reset()
	if err := p.Fields([][2]string{{"ID", "1"}}); err != nil {
		t.Fatal(err)
	}
	check(t, "Field  Value\n-----  -----\nID     1\n", out.String())
}

// TestProgressLines has no terminal: a line for each stage and quarter.
func TestProgressLines(t *testing.T) {
	p, _, errs := printer()
	bar := p.Progress()
	for done := range int64(101) {
		bar.Set("downloading", done, 100)
	}
	bar.Set("downloading", 500, 100) // more than was told
	bar.Set("unpacking", 7, 0)
	bar.Set("unpacking", 9, 0)
	bar.Close()
	bar.Close()
	bar.Set("late", 1, 1)
	check(t, "⋯ downloading: 0B of 100B\n⋯ downloading: 25B of 100B\n⋯ downloading: 50B of 100B\n⋯ downloading: 75B of 100B\n⋯ downloading: 100B of 100B\n⋯ unpacking\n", errs.String())
}

func TestSecret(t *testing.T) {
	p, _, errs := printer()
	for text, want := range map[string]string{"pass word\nnext": "pass word", "crlf\r\n": "crlf", "no end": "no end", "": ""} {
		if got, err := p.Secret(strings.NewReader(text), "Password"); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	check(t, "", errs.String())
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestBrokenOutput(t *testing.T) {
	p := term.New(broken{}, broken{}, func(string) string { return "" })
	p.Info("nobody reads it")
	for _, err := range []error{p.Text("x"), p.JSON(1), p.Table([]string{"a"}, nil), p.Plain([][]string{{"a"}})} {
		if err == nil || !strings.Contains(err.Error(), "write result") {
			t.Error(err)
		}
	}
}
