//go:build integration

package image_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"backendai"
	"backendai/images"
	"backendai/internal/image"
	"backendai/internal/image/service"
)

// rootOf gives the folder for a store: BACKENDAI_TEST_ROOT, which keeps the
// downloaded packages between runs, or a temporary one.
func rootOf(t *testing.T) string {
	if dir := os.Getenv("BACKENDAI_TEST_ROOT"); dir != "" {
		return dir
	}
	return t.TempDir()
}

// mount puts the layers of an image together, read and write, and gives the folder.
func mount(t *testing.T, folders []string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + strings.Join(folders, ":") + ",upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	root := filepath.Join(dir, "root")
	if err := syscall.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) })
	return root
}

func TestBuildPython(t *testing.T) {
	s := open(t, func(o *image.Options) { o.Root, o.Recipes = rootOf(t), images.Recipes() })
	start := time.Now()
	img, err := s.Build(t.Context(), "python", func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built %s of %s in %v", img.Ref, backendai.FormatSize(img.Size), time.Since(start))
	if got, err := s.Resolve(t.Context(), "python", ""); err != nil || got.Digest != img.Digest {
		t.Errorf("Resolve python: %+v, %v", got, err)
	}
	folders, err := s.Layers(t.Context(), img.Digest, "session")
	if err != nil {
		t.Fatal(err)
	}
	root := mount(t, folders)
	dev := filepath.Join(root, "dev")
	if err := syscall.Mount("/dev", dev, "", syscall.MS_BIND, ""); err != nil { // sessions get their own
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dev, syscall.MNT_DETACH) })
	for _, argv := range [][]string{
		{"python3", "-c", "import numpy, notebook; print(numpy.__version__, notebook.__version__)"},
		{"jupyter-notebook", "--version"}, {"pip", "--version"}, {"git", "--version"}, {"bash", "-c", "true"},
	} {
		out, err := exec.CommandContext(t.Context(), "chroot", append([]string{root}, argv...)...).CombinedOutput()
		if err != nil {
			t.Errorf("%q in the image: %v: %s", argv, err, out)
		}
	}
	for _, gone := range []string{"etc/apt/apt.conf.d/00build", "etc/apt/auth.conf", "tmp/commands"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); err == nil {
			t.Errorf("the image has %s of the server", gone)
		}
	}
	t.Run("jupyter", func(t *testing.T) { tryJupyter(t, root, img) })
	if err := s.Release(t.Context(), "session"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "python"); err != nil {
		t.Fatal(err)
	}
}

func TestBuildFailure(t *testing.T) {
	root := t.TempDir()
	s := open(t, func(o *image.Options) { o.Root = root })
	_, err := s.Build(t.Context(), "name = \"broken\"\npackages = [\"no-such-package-here\"]\n", nil)
	wantError(t, err, backendai.CodeUnavailable, "broken", "no-such-package-here")
	nothingLeft(t, root)
	if entries, err := os.ReadDir(filepath.Join(root, "build")); err != nil || len(entries) != 0 {
		t.Errorf("the build's folder stayed: %v, %v", entries, err)
	}
}

// tryJupyter starts the image's jupyter service as a session would and asks it
// what a browser at http://localhost:9900 asks through a tunnel.
func tryJupyter(t *testing.T, root string, img backendai.Image) {
	port := freePort(t)
	v := service.NewVariables([]int{port}, img.Labels[service.LabelRuntimePath], "127.0.0.1")
	data, err := os.ReadFile(filepath.Join(root, service.DefinitionDir, "jupyter.json"))
	if err != nil {
		t.Fatal(err)
	}
	definition, err := service.ParseDefinition(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range definition.Prestart {
		if a, err = a.Expand(v); err != nil {
			t.Fatal(err)
		}
		file := "/tmp/jupyter" + service.TempfileSuffix
		if err := os.WriteFile(root+file, []byte(strings.Join(a.Body, "")), 0o644); err != nil {
			t.Fatal(err)
		}
		v[a.Ref] = service.Text(file)
	}
	argv, _, err := definition.Invocation(v, service.Request{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "chroot", append([]string{"--userspec=1000:1000", root}, argv...)...)
	cmd.Env = append(img.Env, "HOME=/home/work")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			t.Fatal("jupyter ended before it was ready")
		}
		t.Log(lines.Text())
		if strings.Contains(lines.Text(), "is running at") {
			break
		}
	}
	for _, c := range []struct {
		host, origin, path string
		want               int
	}{
		{"localhost:9900", "", "/tree", http.StatusOK},
		{"127.0.0.1:9900", "", "/tree", http.StatusOK},
		{"localhost:9900", "http://localhost:9900", "/api/kernelspecs", http.StatusOK},
		{"localhost:9900", "", "/api/contents", http.StatusOK},
		{"rebound.example:9900", "", "/api/contents", http.StatusForbidden},
		{"localhost:9900", "http://evil.example", "/api/contents", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, c.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("GET %s of host %s from %q: %d, want %d", c.path, c.host, c.origin, resp.StatusCode, c.want)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
