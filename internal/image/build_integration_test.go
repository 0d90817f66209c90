//go:build integration

package image_test

import (
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
