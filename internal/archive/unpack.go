package archive

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"
)

// UnpackOptions are what Unpack can do without.
type UnpackOptions struct {
	Overwrite bool                // replaces files that are there already
	Seen      func(bytes int64)   // is told of the bytes of files that come
	Placed    func(h *tar.Header) // is told of each thing that is in its place
	Noted     func(text string)   // is told what the sender notes
}

// ErrExists is why a file is not unpacked over another.
var ErrExists = fs.ErrExist

// Unpack puts what a stream brings below a root. Files are written aside and get
// their names at the checkpoints; modes and times of directories come last. Links
// that stand in the way are replaced, and none is followed out of the root.
func Unpack(root *os.Root, stream io.Reader, opts UnpackOptions) (err error) {
	u := &unpacker{root: root, opts: opts, aside: ".backend.ai-" + rand.Text(), made: map[string]bool{}}
	if err := root.Mkdir(u.aside, 0o700); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer func() { err = errors.Join(err, root.RemoveAll(u.aside)) }()
	if u.temps, err = root.OpenRoot(u.aside); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer u.temps.Close()
	r := NewReader(stream, u.place)
	r.Noted = opts.Noted
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return err
		}
		if err := u.take(h, r); err != nil {
			return err
		}
	}
}

type unpacker struct {
	root    *os.Root
	opts    UnpackOptions
	aside   string
	temps   *os.Root        // the folder aside
	made    map[string]bool // folders that are certainly there
	pending []waiting
	folders []*tar.Header
	next    int
	buf     []byte
}

// waiting is a thing that waits for its checkpoint.
type waiting struct {
	temp string
	head *tar.Header
}

func (u *unpacker) take(h *tar.Header, content io.Reader) error {
	name := filepath.FromSlash(h.Name)
	if !filepath.IsLocal(name) { // names that mean something else on other systems
		return &EntryError{h.Name, "is no name of a file here"}
	}
	if h.Typeflag == tar.TypeDir {
		u.folders = append(u.folders, h)
		return u.makeFolder(name)
	}
	if h.Name == "." {
		return &EntryError{h.Name, "is the folder itself"}
	}
	u.next++
	temp := strconv.Itoa(u.next)
	u.pending = append(u.pending, waiting{temp, h})
	if h.Typeflag == tar.TypeSymlink {
		return u.temps.Symlink(filepath.FromSlash(h.Linkname), temp)
	}
	f, err := u.temps.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	out := &sparse{file: f}
	if u.buf == nil {
		u.buf = make([]byte, 128<<10)
	}
	_, err = io.CopyBuffer(out, seen{content, u.opts.Seen}, u.buf)
	if err == nil && out.end < h.Size {
		err = f.Truncate(h.Size)
	}
	if mode := h.FileInfo().Mode().Perm(); err == nil && mode != 0o600 {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close(), u.temps.Chtimes(temp, h.ModTime, h.ModTime))
}

// mostMade bounds what is remembered of the folders that are there.
const mostMade = 10_000

// makeFolder makes a directory that its owner can write into until the end.
func (u *unpacker) makeFolder(name string) error {
	if name == "." || u.made[name] {
		return nil
	}
	if err := u.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	if len(u.made) >= mostMade {
		clear(u.made)
	}
	u.made[name] = true
	return nil
}

// place gives names to what is known to be right.
func (u *unpacker) place() error {
	for _, w := range u.pending {
		name := filepath.FromSlash(w.head.Name)
		if err := u.makeFolder(filepath.Dir(name)); err != nil {
			return err
		}
		if info, err := u.root.Lstat(name); err == nil && (info.IsDir() || !u.opts.Overwrite) {
			return &fs.PathError{Op: "unpack", Path: w.head.Name, Err: ErrExists}
		}
		if err := u.root.Rename(filepath.Join(u.aside, w.temp), name); err != nil {
			return err
		}
		if u.opts.Placed != nil {
			u.opts.Placed(w.head)
		}
	}
	u.pending = u.pending[:0]
	return nil
}

func (u *unpacker) finish() error {
	for i := len(u.folders) - 1; i >= 0; i-- {
		h := u.folders[i]
		name := filepath.FromSlash(h.Name)
		if name == "." {
			continue
		}
		if err := errors.Join(u.root.Chmod(name, h.FileInfo().Mode().Perm()|0o700), u.root.Chtimes(name, h.ModTime, h.ModTime)); err != nil {
			return err
		}
		if u.opts.Placed != nil {
			u.opts.Placed(h)
		}
	}
	return nil
}

// seen tells of the bytes that are read.
type seen struct {
	io.Reader

	tell func(int64)
}

// Read implements io.Reader.
func (s seen) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if s.tell != nil && n > 0 {
		s.tell(int64(n))
	}
	return n, err
}

// sparse writes a file from its beginning and leaves holes where zeros are; who
// uses it gives the file its length at the end.
type sparse struct {
	file *os.File
	at   int64
	end  int64 // of what was written
}

// Write implements io.Writer.
func (s *sparse) Write(p []byte) (int, error) {
	end, err := WriteSparse(s.file, p, s.at)
	if err != nil {
		return 0, err
	}
	s.at += int64(len(p))
	s.end = max(s.end, end)
	return len(p), nil
}

// WritebackStep is after how many bytes StartWriteback is worth its call.
const WritebackStep = 8 << 20

// holeSize is what holes are multiples of, in place and in length.
const holeSize = 4096

var zeros [holeSize]byte

// WriteSparse writes bytes at an offset of a file where nothing was written
// before, but leaves a hole where they are zeros. End is behind the last byte that
// was written, 0 when there is none.
func WriteSparse(w io.WriterAt, p []byte, at int64) (end int64, err error) {
	from := 0 // of what is to be written
	write := func(to int) error {
		if from == to {
			return nil
		}
		_, err := w.WriteAt(p[from:to], at+int64(from))
		end = at + int64(to)
		return err
	}
	for i := int(-at & (holeSize - 1)); i+holeSize <= len(p); i += holeSize {
		if !bytes.Equal(p[i:i+holeSize], zeros[:]) {
			continue
		}
		if err := write(i); err != nil {
			return end, err
		}
		from = i + holeSize
	}
	err = write(len(p))
	return end, err
}

// Source is one thing on this machine that is to be sent.
type Source struct {
	Name     string // in the stream
	Path     string // here
	Size     int64
	Mode     fs.FileMode
	Modified time.Time
	Link     string
}

// Skipped is a thing that is not sent, and why.
type Skipped struct{ Path, Reason string }

// Collect lists what is at a path here and, if it is a directory, below it, under
// the given name. What cannot be sent comes in skipped. Links are not followed.
func Collect(file, name string) (sources []Source, skipped []Skipped, err error) {
	if file, err = filepath.Abs(file); err != nil {
		return nil, nil, err
	}
	err = filepath.WalkDir(file, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			if at == file {
				return err
			}
			skipped = append(skipped, Skipped{at, reason(err)})
			return nil
		}
		below, err := filepath.Rel(file, at)
		if err != nil {
			return err
		}
		s := Source{Name: path.Join(name, filepath.ToSlash(below)), Path: at}
		info, err := d.Info()
		if err != nil {
			skipped = append(skipped, Skipped{at, reason(err)})
			return nil
		}
		s.Mode, s.Modified = info.Mode(), info.ModTime()
		switch {
		case d.IsDir():
			if s.Name == "." {
				return nil // it is where the rest goes
			}
		case info.Mode()&fs.ModeSymlink != 0:
			if s.Link, err = os.Readlink(at); err == nil {
				err = CheckLink(s.Name, filepath.ToSlash(s.Link))
			}
			if err != nil {
				skipped = append(skipped, Skipped{at, reason(err)})
				return nil
			}
		case info.Mode().IsRegular():
			s.Size = info.Size()
		default:
			skipped = append(skipped, Skipped{at, "is neither a file nor a directory nor a link"})
			return nil
		}
		sources = append(sources, s)
		return nil
	})
	return sources, skipped, err
}

func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return "cannot be read: " + e.Err.Error()
	}
	return err.Error()
}

// Header makes the header of the source.
func (s Source) Header() *tar.Header {
	h := &tar.Header{Name: s.Name, Mode: int64(s.Mode.Perm()), ModTime: s.Modified}
	switch {
	case s.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, s.Name+"/"
	case s.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, filepath.ToSlash(s.Link)
	default:
		h.Typeflag, h.Size = tar.TypeReg, s.Size
	}
	return h
}

// Add writes a source to a stream. It gives how many bytes the file had. A file
// that is shorter than it was breaks the stream.
func (w *Writer) Add(s Source) (int64, error) { return w.AddCounted(s, nil) }

// AddCounted is Add for files that may be large: tell, unless nil, is told of the
// bytes on their way.
func (w *Writer) AddCounted(s Source, tell func(bytes int64)) (int64, error) {
	h := s.Header()
	if h.Typeflag != tar.TypeReg {
		return 0, w.WriteHeader(h)
	}
	f, err := os.Open(s.Path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	h.Size = info.Size()
	if err := w.WriteHeader(h); err != nil {
		return 0, err
	}
	n, err := io.Copy(w, seen{io.LimitReader(f, h.Size), tell})
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was sent", s.Path)
	}
	return n, err
}
