package archive_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"

	"backendai/internal/archive"
)

// whole is the hash as its definition says it.
func whole(data []byte) string {
	var sums []byte
	for at := 0; at < len(data); at += archive.LeafSize {
		sums = binary.BigEndian.AppendUint64(sums, xxhash.Sum64(data[at:min(at+archive.LeafSize, len(data))]))
	}
	return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, xxhash.Sum64(sums)))
}

// unread is a file that must not be read.
type unread struct{ t *testing.T }

func (u unread) ReadAt([]byte, int64) (int, error) {
	u.t.Error("what has passed is read again")
	return 0, bytes.ErrTooLarge
}

func treeData(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

func sum(t *testing.T, tree *archive.Tree, file interface {
	ReadAt(p []byte, off int64) (int, error)
},
) string {
	t.Helper()
	got, err := tree.Sum(file)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(got)
}

func TestTreeInOrder(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, archive.LeafSize - 1, archive.LeafSize, archive.LeafSize + 1, 3*archive.LeafSize + 5} {
		data := treeData(size)
		tree := archive.NewTree(int64(size))
		if n, err := tree.Take(0, bytes.NewReader(data)); err != nil || n != int64(size) {
			t.Fatal(n, err)
		}
		if got, want := sum(t, tree, unread{t}), whole(data); got != want {
			t.Errorf("of %d bytes: %s, want %s", size, got, want)
		}
	}
}

// The order in which the parts of a file pass makes no difference, and what was
// cut in the middle of a leaf is read.
func TestTreeInAnyOrder(t *testing.T) {
	t.Parallel()
	data := treeData(5*archive.LeafSize + 77)
	tree := archive.NewTree(int64(len(data)))
	cuts := []int{0, 100, archive.LeafSize, archive.LeafSize + 3, 4 * archive.LeafSize, len(data)}
	for _, i := range []int{3, 0, 4, 2, 1} {
		w := tree.At(int64(cuts[i]))
		for at := cuts[i]; at < cuts[i+1]; at += 70_000 {
			_, _ = w.Write(data[at:min(at+70_000, cuts[i+1])])
		}
	}
	if got, want := sum(t, tree, bytes.NewReader(data)), whole(data); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Bytes that come again count, even when they come again in pieces.
func TestTreeAgain(t *testing.T) {
	t.Parallel()
	data := treeData(2 * archive.LeafSize)
	wrong := bytes.Clone(data)
	wrong[5]++
	wrong[archive.LeafSize+9]++
	tree := archive.NewTree(int64(len(data)))
	_, _ = tree.At(0).Write(wrong)
	if got := sum(t, tree, unread{t}); got == whole(data) {
		t.Error("another file has the same hash")
	}
	_, _ = tree.At(0).Write(data[:archive.LeafSize+20])
	_, _ = tree.At(archive.LeafSize + 20).Write(data[archive.LeafSize+20:])
	if got, want := sum(t, tree, bytes.NewReader(data)), whole(data); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A file that has become shorter has a hash, and another one.
func TestTreeShorter(t *testing.T) {
	t.Parallel()
	data := treeData(archive.LeafSize + 10)
	tree := archive.NewTree(int64(len(data)))
	if got := sum(t, tree, bytes.NewReader(data[:archive.LeafSize])); got == whole(data) {
		t.Error("the hash is that of the whole")
	}
}
