package backendai_test

import (
	"path"
	"strings"
	"testing"

	"backendai"
)

func TestFolderNames(t *testing.T) {
	for _, name := range []string{"data", "a", ".ssh", ".local", ".jupyter", ".cache", "my.data", "1", "2024-run_3", ".a", strings.Repeat("x", 64)} {
		if err := backendai.ValidateFolderName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "...", "..a", "a/b", "a b", "-a", "a-", "a.", "_", "ä", "a\n", "\x00", ".bashrc", ".zshrc", ".bash_profile", ".profile", ".tmux.conf",
		strings.Repeat("x", 65), "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef", "01234567-89AB-CDEF-0123-456789abcdef",
	} {
		if err := backendai.ValidateFolderName(name); backendai.CodeOf(err) != backendai.CodeInvalidParams {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestFolderID(t *testing.T) {
	const want = "01234567-89ab-cdef-0123-456789abcdef"
	for _, text := range []string{want, strings.ReplaceAll(want, "-", ""), strings.ToUpper(want)} {
		if id, ok := backendai.FolderID(text); !ok || id != want {
			t.Errorf("FolderID(%q) = %q, %t", text, id, ok)
		}
	}
	for _, text := range []string{"", "data", want + "0", "g" + want[1:], "0123456789abcdef0123456789abcde"} {
		if id, ok := backendai.FolderID(text); ok {
			t.Errorf("FolderID(%q) = %q", text, id)
		}
	}
}

func TestPermissions(t *testing.T) {
	if !backendai.WriteDelete.Allows(backendai.ReadWrite) || !backendai.ReadWrite.Allows(backendai.ReadWrite) || backendai.ReadOnly.Allows(backendai.ReadWrite) {
		t.Error("the order of permissions")
	}
	if p, err := backendai.ParsePermission("RO"); p != backendai.ReadOnly || err != nil {
		t.Errorf("ParsePermission(RO) = %q, %v", p, err)
	}
	if _, err := backendai.ParsePermission("rwx"); err == nil {
		t.Error("rwx is a permission")
	}
}

func TestMountSources(t *testing.T) {
	for source, want := range map[string][2]string{
		"data": {"data", ""}, "data/": {"data", ""}, "data/sub": {"data", "sub"}, "data//a/./b/": {"data", "a/b"}, ".ssh": {".ssh", ""}, "d/...": {"d", "..."},
	} {
		folder, sub, err := backendai.ParseMountSource(source)
		if err != nil || folder != want[0] || sub != want[1] {
			t.Errorf("ParseMountSource(%q) = %q, %q, %v", source, folder, sub, err)
		}
	}
	for _, source := range []string{"", "/data", "data/..", "data/../x", "data/a/../../x", "data/\x00"} {
		if _, _, err := backendai.ParseMountSource(source); err == nil {
			t.Errorf("ParseMountSource(%q) gave no error", source)
		}
	}
}

func TestMountTargets(t *testing.T) {
	for target, want := range map[string]string{
		"data": "/home/work/data", "/data": "/data", "a/../b": "/home/work/b", "/opt/x": "/opt/x", "/usr/local/x": "/usr/local/x",
		"/home/linuxbrew/.linuxbrew": "/home/linuxbrew/.linuxbrew", "/mnt/a b": "/mnt/a b", "/runx": "/runx", "/tmp/x/": "/tmp/x",
	} {
		if got, err := backendai.ParseMountTarget(target); err != nil || got != want {
			t.Errorf("ParseMountTarget(%q) = %q, %v", target, got, err)
		}
	}
	for _, target := range []string{
		"", ".", "/", "..", "../..", "/home/work", "/home/work/", "/home/work/../work", "/etc", "/etc/ssl", "/proc", "/proc/self/x", "/sys/fs", "/dev/shm", "/usr",
		"/usr/bin", "/usr/lib/python3", "/opt/kernel/runner", "/run/x", "/tmp", "a\nb", "a\x00", "/home", "/" + strings.Repeat("x", 256), "/" + strings.Repeat("xx/", 2000),
		"../../etc/passwd", "/home/work/../../etc",
	} {
		if got, err := backendai.ParseMountTarget(target); err == nil {
			t.Errorf("ParseMountTarget(%q) = %q, want an error", target, got)
		}
	}
}

func FuzzMount(f *testing.F) {
	for _, seed := range []string{"data", "data/sub", "../x", "/etc", "a/../b", "/home/work/../../proc/1", "x/\x00", "/data//."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if folder, sub, err := backendai.ParseMountSource(text); err == nil {
			if folder == "" || strings.Contains(folder, "/") || path.IsAbs(sub) || path.Join("/f", sub) != "/f" && !strings.HasPrefix(path.Join("/f", sub), "/f/") {
				t.Errorf("ParseMountSource(%q) = %q, %q", text, folder, sub)
			}
		}
		target, err := backendai.ParseMountTarget(text)
		if err != nil {
			return
		}
		if !path.IsAbs(target) || path.Clean(target) != target || backendai.Overlap(target, "/proc") || backendai.Overlap(target, "/etc") || target == "/home/work" {
			t.Errorf("ParseMountTarget(%q) = %q", text, target)
		}
		if again, err := backendai.ParseMountTarget(target); err != nil || again != target {
			t.Errorf("ParseMountTarget(%q) = %q, %v: not stable", target, again, err)
		}
	})
}
