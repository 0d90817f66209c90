package archive

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// The names of hashes on the wire.
const (
	HashName = "xxh64"      // of bytes that are sent at once
	TreeName = "xxh64-tree" // of whole files: see Tree
)

// The fields of RFC 9530 by which a client asks for the hash of a whole file and
// gets it: behind the file, as a trailer, for it is made of the bytes as they go.
const (
	WantDigest = "Want-Repr-Digest"
	ReprDigest = "Repr-Digest"
)

// Digest is the value of ReprDigest for the sum of a Tree.
func Digest(sum []byte) string {
	return TreeName + "=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

// LeafSize is the length of the pieces of a Tree, in bytes; the last is shorter.
const LeafSize = 4 << 20

// NewHash is the hash of bytes that are sent at once. Like that of a Tree, it
// finds what the way, a memory or a disk has changed; it does not have to
// withstand somebody who means it: whoever can change the bytes on their way can
// change what is said of them too, unless TLS prevents both.
func NewHash() hash.Hash { return xxhash.New() }

// Tree is the hash of a whole file that both sides of a transfer compare in the
// end: the xxHash of those of its leaves, in their order, each as 8 bytes with
// the highest first. So each side can hash the bytes as they pass, in whatever
// order they do, and need not read the file for it. It is safe for concurrent use.
type Tree struct {
	size int64

	mu     sync.Mutex
	leaves map[int64]uint64 // by number; those that have passed whole
}

// NewTree is the hash of a file of size bytes, of which nothing has passed yet.
func NewTree(size int64) *Tree { return &Tree{size: size, leaves: map[int64]uint64{}} }

// At takes the bytes that pass, from a position in the file on. Bytes that come
// again count instead of the earlier ones. One goroutine at a time may use it.
func (t *Tree) At(position int64) io.Writer {
	return &pass{tree: t, at: position, leaf: -1, hash: xxhash.New()}
}

// Take reads all that a reader gives as bytes that pass, and returns how many.
func (t *Tree) Take(position int64, r io.Reader) (int64, error) {
	return io.CopyBuffer(t.At(position), struct{ io.Reader }{r}, make([]byte, 256<<10))
}

// Sum is the hash. Leaves that have not passed whole are read from the file; one
// that is shorter than it was is hashed as far as it goes.
func (t *Tree) Sum(file io.ReaderAt) ([]byte, error) {
	whole := xxhash.New()
	for leaf := int64(0); leaf*LeafSize < t.size; leaf++ {
		sum, ok := t.leaf(leaf)
		if !ok {
			h := xxhash.New()
			_, err := io.Copy(h, io.NewSectionReader(file, leaf*LeafSize, min(LeafSize, t.size-leaf*LeafSize)))
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, err
			}
			sum = h.Sum64()
		}
		_, _ = whole.Write(binary.BigEndian.AppendUint64(nil, sum)) // never fails
	}
	return whole.Sum(nil), nil
}

func (t *Tree) leaf(n int64) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum, ok := t.leaves[n]
	return sum, ok
}

// pass is some bytes of the file that follow each other.
type pass struct {
	tree *Tree
	at   int64
	leaf int64 // which the last byte was of
	from int64 // where in that leaf hash begins
	hash *xxhash.Digest
}

// Write implements io.Writer.
func (p *pass) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if leaf := p.at / LeafSize; leaf != p.leaf {
			p.leaf, p.from = leaf, p.at%LeafSize
			p.hash.Reset()
			p.tree.forget(leaf)
		}
		n := min(int64(len(rest)), LeafSize-p.at%LeafSize)
		_, _ = p.hash.Write(rest[:n]) // never fails
		p.at += n
		rest = rest[n:]
		if p.from == 0 && (p.at%LeafSize == 0 || p.at == p.tree.size) {
			p.tree.keep(p.leaf, p.hash.Sum64())
		}
	}
	return len(b), nil
}

func (t *Tree) keep(leaf int64, sum uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaves[leaf] = sum
}

func (t *Tree) forget(leaf int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.leaves, leaf)
}
