package backendai_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// imports is the table of ARCHITECTURE.md: which packages of this module each
// package may import. Everyone may import the root package. Arrows point
// downwards only; siblings do not know each other. A new package starts with a
// line here.
var imports = map[string][]string{
	".":                          {},
	"images":                     {},
	"internal/version":           {},
	"internal/auth":              {},
	"internal/tunnel":            {},
	"internal/term":              {},
	"internal/config":            {},
	"internal/filter":            {},
	"internal/control":           {},
	"internal/image/service":     {},
	"internal/image":             {"images", "internal/image/service"},
	"internal/engine":            {"internal/control"},
	"internal/engine/oci":        {"internal/engine", "internal/control"},
	"internal/engine/fake":       {"internal/engine", "internal/control", "internal/runner", "internal/runner/process"},
	"internal/runner/process":    {},
	"internal/runner/service":    {"internal/control", "internal/image/service", "internal/runner/process"},
	"internal/runner/files":      {"internal/control"},
	"internal/runner/sshd":       {"internal/control", "internal/runner/process", "internal/runner/sshd/sftp"},
	"internal/runner/sshd/sftp":  {},
	"internal/runner/ttyd":       {"internal/control", "internal/runner/process"},
	"internal/runner":            {"internal/control", "internal/version", "internal/image/service", "internal/runner/process", "internal/runner/service", "internal/runner/files", "internal/runner/sshd", "internal/runner/ttyd"},
	"internal/account":           {},
	"internal/session":           {"internal/engine", "internal/control", "internal/image/service"},
	"internal/archive":           {},
	"internal/dotfile":           {"internal/control"},
	"internal/vfolder":           {"internal/engine", "internal/archive"},
	"internal/store":             {"internal/dotfile", "internal/account", "internal/session", "internal/vfolder", "internal/filter"},
	"internal/api":               {"internal/archive", "internal/dotfile", "internal/account", "internal/session", "internal/vfolder", "internal/auth", "internal/tunnel", "internal/api/graphql"},
	"internal/api/graphql":       {"internal/account", "internal/session", "internal/vfolder", "internal/filter"},
	"internal/client":            {"internal/archive", "internal/auth", "internal/tunnel"},
	"internal/server":            {"internal/dotfile", "internal/config", "internal/version", "internal/engine", "internal/engine/oci", "internal/engine/fake", "internal/image", "internal/store", "internal/account", "internal/session", "internal/vfolder", "internal/api", "internal/client", "internal/tunnel"},
	"cmd/runner":                 {"internal/control", "internal/version", "internal/runner", "internal/runner/process"},
	"cmd/backend.ai":             {"internal/archive", "internal/client", "internal/tunnel", "internal/term", "internal/version", "internal/config", "internal/server", "internal/engine/oci"},
	"internal/engine/enginetest": {"internal/engine", "internal/control"},
	"internal/testserver":        {"internal/server", "internal/config", "internal/client"},
}

// testSupport are packages for tests alone: only test files may import them.
var testSupport = []string{"internal/engine/enginetest", "internal/testserver"}

const (
	module           = "backendai"
	maxFileLines     = 600
	maxFunctionLines = 100
)

// source is one parsed Go file, by its path below the module's root.
type source struct {
	path string
	file *ast.File
	set  *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"node_modules", "testdata", "bin", "tools"}, d.Name())) {
			return filepath.SkipDir
		}
		if filepath.Ext(p) != ".go" {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(p), f, set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImportsPointDownwards(t *testing.T) {
	for _, s := range sources(t) {
		dir := path.Dir(s.path)
		if strings.HasPrefix(dir, "e2e") || strings.HasPrefix(dir, "bench") || strings.HasSuffix(s.path, "_test.go") {
			continue // programs above everything, and tests, may use what they test
		}
		allowed, known := imports[dir]
		if !known {
			t.Errorf("%s: package %s has no line in the table of imports", s.path, dir)
			continue
		}
		for _, spec := range s.file.Imports {
			name := strings.Trim(spec.Path.Value, `"`)
			if name == module || !strings.HasPrefix(name, module+"/") {
				continue
			}
			name = strings.TrimPrefix(name, module+"/")
			if slices.Contains(testSupport, name) && !slices.Contains(testSupport, dir) {
				t.Errorf("%s imports %s, which is for tests only", s.path, name)
			} else if !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s, which the table does not allow", s.path, name)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		dir := path.Dir(s.path)
		documented[dir] = documented[dir] || s.file.Doc.Text() != ""
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment", dir)
		}
		if base := path.Base(dir); slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "pkg", "types"}, base) {
			t.Errorf("package %s is named for nothing", dir)
		}
	}
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") || ast.IsGenerated(s.file) {
			continue
		}
		if n := s.set.Position(s.file.End()).Line; n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.path, n, maxFileLines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			first, last := s.set.Position(f.Pos()).Line, s.set.Position(f.End()).Line
			if n := last - first + 1; n > maxFunctionLines {
				t.Errorf("%s:%d: %s has %d lines, more than %d", s.path, first, f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

// TestTableIsTold holds ARCHITECTURE.md to the table: every package has a row.
func TestTableIsTold(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for dir := range imports {
		if !strings.Contains(string(text), "| `"+dir+"` |") {
			t.Errorf("ARCHITECTURE.md has no row for %s", dir)
		}
	}
}
