// Package archive is many files as one stream: a tar in which a checksum of all
// that came before stands at every checkpoint. A receiver keeps aside what it
// unpacks and puts it in place at the next checkpoint, so that neither a broken
// connection nor a broken byte leaves a file that looks whole and is not.
//
// A checkpoint is a global header of PAX with the records BACKENDAI.sha256 and
// BACKENDAI.entries, the last one also with BACKENDAI.end; a tar program that
// does not know them passes over them.
package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// MediaType is that of the stream.
const MediaType = "application/x-tar"

const (
	sumKey   = "BACKENDAI.sha256"
	countKey = "BACKENDAI.entries"
	endKey   = "BACKENDAI.end"
	noteKey  = "BACKENDAI.skipped"
)

// Checkpoints come after so many entries or bytes, at the end of an entry.
// A reader, which has to remember what it cannot be certain of, takes a few more.
const (
	maxEntries = 256
	maxBytes   = 4 << 20
	mostTaken  = 4 * maxEntries
)

// The errors of a stream.
var (
	ErrChecksum  = errors.New("the stream does not have the checksum that it tells")
	ErrTruncated = errors.New("the stream ended before its end")
)

// EntryError is an entry that cannot be taken.
type EntryError struct{ Name, Reason string }

// Error implements error.
func (e *EntryError) Error() string {
	return fmt.Sprintf("the archive has %q, which %s", e.Name, e.Reason)
}

// digest is the running checksum: of what each entry says and holds, not of the
// bytes of the tar, which may be written in more than one way.
type digest struct {
	hash    hash.Hash
	entries int
}

func newDigest() *digest { return &digest{hash: sha256.New()} }

func (d *digest) header(h *tar.Header) {
	var b []byte
	for _, text := range []string{h.Name, h.Linkname} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
		b = append(b, text...)
	}
	kind := h.Typeflag
	if kind == 0 {
		kind = tar.TypeReg
	}
	for _, n := range []int64{int64(kind), h.Mode & 0o7777, h.Size, h.ModTime.Unix()} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	d.hash.Write(b)
	d.entries++
}

func (d *digest) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// Writer writes a stream.
type Writer struct {
	tar     *tar.Writer
	digest  *digest
	entries int   // since the last checkpoint
	bytes   int64 // since the last checkpoint
}

// NewWriter makes a Writer.
func NewWriter(w io.Writer) *Writer { return &Writer{tar: tar.NewWriter(w), digest: newDigest()} }

// WriteHeader begins an entry; its content, if any, follows by Write.
func (w *Writer) WriteHeader(h *tar.Header) error {
	if w.entries >= maxEntries || w.bytes >= maxBytes {
		if err := w.checkpoint(false); err != nil {
			return err
		}
	}
	// What the tar would round away must not be part of the checksum.
	whole := *h
	whole.ModTime = time.Unix(0, 0)
	if !h.ModTime.IsZero() {
		whole.ModTime = time.Unix(h.ModTime.Unix(), 0)
	}
	if err := w.tar.WriteHeader(&whole); err != nil {
		return err
	}
	w.digest.header(&whole)
	w.entries++
	return nil
}

// Write implements io.Writer for the content of the entry.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.tar.Write(p)
	w.digest.hash.Write(p[:n])
	w.bytes += int64(n)
	return n, err
}

func (w *Writer) checkpoint(end bool) error {
	records := map[string]string{sumKey: w.digest.sum(), countKey: strconv.Itoa(w.digest.entries)}
	if end {
		records[endKey] = "true"
	}
	w.entries, w.bytes = 0, 0
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "checkpoint", PAXRecords: records})
}

// Note tells the receiver something, such as what is left out and why.
func (w *Writer) Note(text string) error {
	text = strings.ReplaceAll(text, "\x00", "")
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "note", PAXRecords: map[string]string{noteKey: text}})
}

// Close ends the stream; it does not close the underlying writer.
func (w *Writer) Close() error {
	if err := w.checkpoint(true); err != nil {
		return err
	}
	return w.tar.Close()
}

// Reader reads a stream.
type Reader struct {
	tar        *tar.Reader
	digest     *digest
	checkpoint func() error
	entries    int // since the last checkpoint
	ended      bool

	// Noted, unless nil, is told what the sender notes.
	Noted func(text string)
}

// NewReader makes a Reader. It calls checkpoint whenever all that was read until
// then is known to be right, the last time at the end.
func NewReader(r io.Reader, checkpoint func() error) *Reader {
	return &Reader{tar: tar.NewReader(r), digest: newDigest(), checkpoint: checkpoint}
}

// Next gives the next entry, whose name is clean and stays below where it is
// unpacked. It is io.EOF after the whole stream. The content of an entry must be
// read before the next.
func (r *Reader) Next() (*tar.Header, error) {
	for {
		h, err := r.tar.Next()
		switch {
		case errors.Is(err, io.EOF) && r.ended:
			return nil, io.EOF
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, ErrTruncated
		case err != nil:
			return nil, fmt.Errorf("read archive: %w", err)
		case r.ended:
			return nil, &EntryError{h.Name, "comes after the end"}
		case h.Typeflag != tar.TypeXGlobalHeader:
			r.digest.header(h)
			if r.entries++; r.entries > mostTaken {
				return nil, &EntryError{h.Name, fmt.Sprintf("comes %d entries after the last checkpoint", mostTaken)}
			}
			return h, check(h)
		}
		if note := h.PAXRecords[noteKey]; note != "" && r.Noted != nil {
			r.Noted(note)
		}
		if _, ours := h.PAXRecords[sumKey]; !ours {
			continue
		}
		if h.PAXRecords[sumKey] != r.digest.sum() || h.PAXRecords[countKey] != strconv.Itoa(r.digest.entries) {
			return nil, ErrChecksum
		}
		r.entries, r.ended = 0, h.PAXRecords[endKey] != ""
		if err := r.checkpoint(); err != nil {
			return nil, err
		}
	}
}

// Read implements io.Reader for the content of the entry.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.tar.Read(p)
	r.digest.hash.Write(p[:n])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = ErrTruncated
	}
	return n, err
}

// The limits of names.
const (
	maxName  = 255
	maxPath  = 4095
	maxDepth = 256
)

// check refuses what must not be unpacked, and cleans the entry's name.
func check(h *tar.Header) error {
	refuse := func(reason string) error { return &EntryError{h.Name, reason} }
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
	default:
		return refuse("is neither a file nor a directory nor a link")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // a few bytes that would become as many zeros as they tell
			return refuse("is sparse")
		}
	}
	if h.Size < 0 || h.Typeflag != tar.TypeReg && h.Size != 0 {
		return refuse("has content that it cannot have")
	}
	clean, err := CleanName(h.Name)
	if err != nil {
		return refuse(err.Error())
	}
	if h.Typeflag == tar.TypeSymlink {
		if err := CheckLink(clean, h.Linkname); err != nil {
			return refuse(err.Error())
		}
	}
	h.Name = clean
	return nil
}

// CleanName gives a name of an archive without what says nothing. It refuses
// those that lead out of the place where they are unpacked.
func CleanName(name string) (string, error) {
	switch {
	case name == "" || strings.ContainsRune(name, 0):
		return "", errors.New("is not a name")
	case path.IsAbs(name):
		return "", errors.New("is absolute")
	case len(name) > maxPath:
		return "", errors.New("is too long")
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", errors.New("has ..")
		case len(part) > maxName:
			return "", errors.New("has a part of more than 255 bytes")
		case part != "" && part != ".":
			depth++
		}
	}
	if depth > maxDepth {
		return "", fmt.Errorf("is nested more than %d deep", maxDepth)
	}
	return path.Clean(name), nil
}

// CheckLink refuses a link that leads out of the place where it is unpacked.
func CheckLink(name, target string) error {
	switch {
	case target == "" || strings.ContainsRune(target, 0) || len(target) > maxPath:
		return errors.New("is a link to nowhere")
	case path.IsAbs(target):
		return errors.New("is a link to an absolute path")
	}
	// Each step must stay inside: a/../../b climbs out and in again.
	at := path.Dir(name)
	for part := range strings.SplitSeq(target, "/") {
		if at = path.Join(at, part); at == ".." || strings.HasPrefix(at, "../") {
			return errors.New("is a link that leads out")
		}
	}
	return nil
}

// Header makes the header of an entry. WriteHeader keeps whole seconds of its
// time, so that it needs no more than the form that every reader knows.
func Header(name string, info fs.FileInfo, link string) *tar.Header {
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}
	switch {
	case info.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, link
	default:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	}
	return h
}
