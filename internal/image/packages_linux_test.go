package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Two builds at once share what was downloaded and do not see each other.
func TestPackagesAreShared(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "packages")
	one := checkedOut(t, cache)
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(one.dir, "a_1.deb", "a")
	write(one.dir, "b_1.deb", "b")
	write(one.dir, "lock", "")
	two := checkedOut(t, cache)
	if _, err := os.Stat(one.dir); err != nil {
		t.Errorf("another build has swept one that is under way: %v", err)
	}
	one.checkIn(true)
	if got := names(t, two.dir); len(got) != 0 {
		t.Errorf("a build that began before has %v", got)
	}
	write(two.dir, "a_1.deb", "a, anew") // the other was not there yet
	two.checkIn(false)
	three := checkedOut(t, cache)
	if got, want := names(t, three.dir), []string{"a_1.deb", "b_1.deb"}; !slices.Equal(got, want) {
		t.Fatalf("a later build has %v, want %v", got, want)
	}
	if text, err := os.ReadFile(filepath.Join(three.dir, "a_1.deb")); err != nil || string(text) != "a, anew" {
		t.Errorf("the cache has kept %q, %v", text, err)
	}
	if err := os.Remove(filepath.Join(three.dir, "b_1.deb")); err != nil {
		t.Fatal(err)
	}
	three.checkIn(false)
	if got := debs(names(t, cache)); len(got) != 2 {
		t.Errorf("after a build that failed the cache has %v", got)
	}
	three.checkIn(true)
	if got, want := debs(names(t, cache)), []string{"a_1.deb"}; !slices.Equal(got, want) {
		t.Errorf("what is out of date stays: %v, want %v", got, want)
	}
	for _, p := range []*packages{one, two, three} {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, cache); len(got) != 1 {
		t.Errorf("at the end the cache has %v", got)
	}
}

// A build that a crash ended holds no lock any more.
func TestUnfinishedPackagesAreSwept(t *testing.T) {
	cache := t.TempDir()
	left := filepath.Join(cache, "build-1")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	p := checkedOut(t, cache)
	defer p.close()
	if _, err := os.Stat(left); err == nil {
		t.Errorf("%s was left", left)
	}
}

func checkedOut(t *testing.T, cache string) *packages {
	t.Helper()
	p, err := checkOut(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, p.dir) { // the machine's own, if it keeps any
		if _, err := os.Stat(filepath.Join(cache, name)); err != nil {
			if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func debs(all []string) []string {
	return slices.DeleteFunc(all, func(name string) bool { return filepath.Ext(name) != ".deb" })
}
