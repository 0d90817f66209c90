package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/anmitsu/go-shlex"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"backendai"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noEnv is an environment in which nothing is set.
func noEnv(string) string { return "" }

// tree makes all commands.
func tree(t *testing.T, out io.Writer) *cobra.Command {
	t.Helper()
	e := newEnv(strings.NewReader(""), out, out, noEnv)
	t.Cleanup(e.close)
	root := newRootCommand(e)
	root.SetOut(out)
	return root
}

func everyCommand(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, sub := range root.Commands() {
		all = append(all, everyCommand(sub)...)
	}
	return all
}

// TestHelp compares the manual of every command with its golden file.
func TestHelp(t *testing.T) {
	const dir = "testdata/help"
	var out bytes.Buffer
	root := tree(t, &out)
	var written []string
	for _, cmd := range everyCommand(root) {
		path := strings.Fields(cmd.CommandPath())
		name := strings.Join(append(path[1:], ""), "_")
		if name = strings.TrimSuffix(name, "_"); name == "" {
			name = path[0]
		}
		name += ".txt"
		written = append(written, name)
		out.Reset()
		root.SetArgs(append(path[1:], "-h"))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Errorf("%s -h: %v", cmd.CommandPath(), err)
			continue
		}
		golden := filepath.Join(dir, name)
		if *update {
			if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Errorf("%v; run the test with -update", err)
			continue
		}
		if diff := cmp.Diff(string(want), out.String()); diff != "" {
			t.Errorf("%s -h differs from %s; run the test with -update if that is meant:\n%s", cmd.CommandPath(), golden, diff)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(written, f.Name()) {
			if *update {
				if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
					t.Fatal(err)
				}
				continue
			}
			t.Errorf("%s is the manual of no command", f.Name())
		}
	}
}

// TestManualsAreWhole holds every command to what a manual must tell.
func TestManualsAreWhole(t *testing.T) {
	for _, cmd := range everyCommand(tree(t, io.Discard)) {
		path := cmd.CommandPath()
		if cmd.Short == "" || cmd.Long == "" {
			t.Errorf("%s: no description", path)
		}
		if strings.HasSuffix(cmd.Short, ".") || !strings.HasSuffix(cmd.Long, ".") {
			t.Errorf("%s: the short description is a phrase, the long one sentences", path)
		}
		if !isGroup(cmd) && cmd.Example == "" {
			t.Errorf("%s: no example", path)
		}
		var told []string
		for _, a := range decode(cmd.Annotations[sectionArguments]) {
			told = append(told, a[0])
		}
		for _, name := range strings.Fields(cmd.Use)[1:] {
			if name = strings.Trim(name, "[]…"); !slices.Contains(told, name) {
				t.Errorf("%s: the argument %s is not told", path, name)
			}
		}
		for _, o := range options(cmd.NonInheritedFlags()) {
			if o[1] == "" {
				t.Errorf("%s: the option %s has no meaning", path, o[0])
			}
		}
		for _, example := range strings.Split(cmd.Example, "\n") {
			if !strings.Contains(example, "backend.ai") && !strings.HasPrefix(example, "#") && example != "" {
				t.Errorf("%s: the example %q does not call it", path, example)
			}
		}
	}
}

func TestLinesFit(t *testing.T) {
	files, err := filepath.Glob("testdata/help/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		examples := false
		for i, line := range strings.Split(string(text), "\n") {
			examples = examples && line != "Exit codes:" || line == "Examples:"
			if n := len([]rune(line)); n > lineWidth && !examples {
				t.Errorf("%s:%d has %d characters", file, i+1, n)
			}
		}
	}
}

// TestExamplesAreRight reads every example as the command line that it is.
func TestExamplesAreRight(t *testing.T) {
	for _, cmd := range everyCommand(tree(t, io.Discard)) {
		for _, line := range strings.Split(cmd.Example, "\n") {
			at := strings.Index(line, "backend.ai ")
			if strings.HasPrefix(line, "#") || at < 0 || strings.Contains(line[:at], "ProxyCommand") || !strings.HasPrefix(strings.TrimSpace(line[at:]), "backend.ai") {
				continue
			}
			if _, after, inner := strings.Cut(line, "$("); inner && strings.HasPrefix(after, "backend.ai") {
				line, _, _ = strings.Cut(after, ")")
				at = 0
			}
			if end := strings.IndexAny(line[at:], "<>|&$"); end > 0 && !strings.Contains(line[at:at+end], "'") {
				line = line[:at+end]
			}
			words, err := shlex.Split(strings.TrimRight(line[at:], " "), true)
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			root := tree(t, io.Discard)
			found, args, err := root.Traverse(words[1:])
			if err == nil && !found.DisableFlagParsing {
				if err = found.ParseFlags(args); err == nil {
					args = found.Flags().Args()
				}
			}
			if err == nil {
				err = found.ValidateArgs(args)
			}
			if err != nil || isGroup(found) {
				t.Errorf("the example %q of %s is wrong: %v", line, cmd.CommandPath(), err)
			}
			if name, err := found.Flags().GetString("name"); err == nil && name != "" && found.Name() == "start" && backendai.ValidateSessionName(name) != nil {
				t.Errorf("the example %q has the name %q", line, name)
			}
		}
	}
}
