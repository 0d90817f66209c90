package files

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// worthwhile is how many bytes holes must save for a file to be packed as sparse.
	worthwhile = 1 << 20
	// maxSegments bounds the map of a sparse file; one with more is packed whole.
	maxSegments = 4096
	// maxPacked is the largest size that the old header of a sparse file can tell.
	maxPacked = 1<<33 - 1

	blockSize = 512
)

// segment is a part of a file that is no hole.
type segment struct{ offset, length int64 }

// segments are the parts of a file with large holes, nil for any other.
func segments(f *os.File, info fs.FileInfo) []segment {
	stat, ok := info.Sys().(*syscall.Stat_t)
	size := info.Size()
	if !ok || size-stat.Blocks*blockSize < worthwhile {
		return nil
	}
	defer f.Seek(0, io.SeekStart) //nolint:errcheck // a regular file can go back
	parts := []segment{}
	for at := int64(0); at < size; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if err != nil {
			break // the rest is a hole, or the filesystem cannot tell
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil || len(parts) == maxSegments {
			return nil
		}
		end = min(end, size)
		if end > start {
			parts = append(parts, segment{start, end - start})
		}
		at = end
	}
	if n := len(parts); n == 0 || parts[n-1].offset+parts[n-1].length < size {
		parts = append(parts, segment{offset: size}) // GNU tar sees a hole at the end by it
	}
	if packed := int64(len(mapOf(parts))) + total(parts); packed > maxPacked || size-packed < worthwhile {
		return nil
	}
	return parts
}

func total(parts []segment) int64 {
	var sum int64
	for _, s := range parts {
		sum += s.length
	}
	return sum
}

// mapOf is the map that precedes the data (GNU tar manual, "Storing Sparse
// Files", version 1.0).
func mapOf(parts []segment) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d\n", len(parts))
	for _, s := range parts {
		fmt.Fprintf(&b, "%d\n%d\n", s.offset, s.length)
	}
	return pad(b.Bytes())
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&(blockSize-1))...) }

// addSparse packs a file without its holes. Package tar reads such entries but
// does not write them: their extended header is made here, in front of the
// ordinary one, which holds nothing that needs another.
func (p *packer) addSparse(f *os.File, name string, info fs.FileInfo, parts []segment) error {
	if err := p.tar.Flush(); err != nil {
		return err
	}
	var records []byte
	for _, r := range [][2]string{
		{"GNU.sparse.major", "1"},
		{"GNU.sparse.minor", "0"},
		{"GNU.sparse.name", name},
		{"GNU.sparse.realsize", strconv.FormatInt(info.Size(), 10)},
	} {
		records = append(records, record(r[0], r[1])...)
	}
	if _, err := p.out.Write(append(extendedHeader(len(records)), pad(records)...)); err != nil {
		return err
	}
	holes := mapOf(parts)
	h := header("GNUSparseFile.0/file", info)
	h.Typeflag, h.Format, h.Size = tar.TypeReg, tar.FormatUSTAR, int64(len(holes))+total(parts)
	h.Uid, h.Gid = h.Uid&(1<<21-1), h.Gid&(1<<21-1) // more does not fit, and nobody goes by them
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	if _, err := p.tar.Write(holes); err != nil {
		return err
	}
	for _, s := range parts {
		if err := p.copy(io.NewSectionReader(f, s.offset, s.length), name, s.length); err != nil {
			return err
		}
	}
	return nil
}

// record is one of an extended header: its length in decimal, which counts
// itself, a key and a value (pax(1)).
func record(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + len(strconv.Itoa(len(rest)))
	if len(strconv.Itoa(n))+len(rest) != n {
		n++
	}
	return strconv.Itoa(n) + rest
}

// extendedHeader is the header block of an extended header of that size.
func extendedHeader(size int) []byte {
	b := make([]byte, blockSize)
	copy(b, "PaxHeaders.0/file")
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00%011o\x00        x", size, 0))
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}
