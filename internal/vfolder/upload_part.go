package vfolder

import (
	"cmp"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
)

// part is a piece of an upload and its record on the disk.
type part struct {
	Part

	record  string // path
	touched int64  // where the first byte is that was certainly never written
}

// addPart makes a piece of which nothing is here yet.
func (u *upload) addPart(id string, position, length int64) error {
	p := &part{Part: Part{ID: id, Position: position, Length: length}, record: filepath.Join(u.dir, partPrefix+id)}
	if err := os.WriteFile(p.record, p.bytes(), 0o600); err != nil {
		return err
	}
	u.parts[id] = p
	return nil
}

// recordSize is the length of a part's record: position, length and offset, and
// the start of the machine in which the offset was written. Bytes that were
// written before a crash of the machine may not be on the disk: they come again.
const recordSize = 3*8 + 16

// bytes is the record.
func (p *part) bytes() []byte {
	var b []byte
	for _, n := range []int64{p.Position, p.Length, p.Offset} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, bootID()...)
}

// readPart reads a record. It is nil when the server ended before it was written.
func readPart(file, id string) (*part, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(b) != recordSize {
		return nil, nil
	}
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) }
	p := &part{Part: Part{ID: id, Position: n(0), Length: n(1), Offset: n(2)}, record: file, touched: n(1)}
	if string(b[24:]) != string(bootID()) {
		p.Offset = 0
	}
	return p, nil
}

// pieces are the parts that our own client makes; the whole file is not one of them.
func (u *upload) pieces() []Part {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []Part
	for id, p := range u.parts {
		if id != "" {
			list = append(list, p.Part)
		}
	}
	slices.SortFunc(list, func(a, b Part) int { return cmp.Compare(a.Position, b.Position) })
	return list
}

// digest gives the hash of the whole file, of which all parts are here.
func (u *upload) digest() ([]byte, error) {
	f, err := os.Open(filepath.Join(u.dir, contentFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return u.tree.Sum(f)
}

// complete is how much of the file is here from its beginning on, in whole parts.
func (u *upload) complete() int64 {
	var end int64
	for _, p := range u.pieces() {
		if p.Position != end || p.Offset != p.Length {
			break
		}
		end += p.Length
	}
	return end
}
