package files

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"backendai"
	"backendai/internal/control"
)

const (
	// maxSparse bounds what a sparse entry may claim to be: a few bytes of
	// archive can stand for any number of zeros, which take time to pass over.
	maxSparse = 1 << 37
	// maxArchiveName is longer than any path that the system takes.
	maxArchiveName = 4096

	// What a file must be to be on the disk before it gets its name: large, or
	// one of the first of its archive. Waiting for each of very many small files
	// would take longer than sending them.
	syncSize  = 1 << 20
	syncFiles = 16
)

// Target is a folder below the home, ready to take what an archive has.
type Target struct {
	root *os.Root
}

// OpenTarget finds a folder and makes it, and those above it, where there is
// none. The caller closes it.
func OpenTarget(home, name string) (*Target, error) {
	clean, err := local(home, name)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(home)
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	defer root.Close()
	below, err := openOrMake(root, clean)
	switch {
	case err == nil:
		return &Target{below}, nil
	case escapes(err):
		return nil, outside(name)
	default:
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "%q is no folder that can be written to: %w", name, reason(err))
	}
}

func openOrMake(root *os.Root, dir string) (*os.Root, error) {
	below, err := root.OpenRoot(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return below, err
	}
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return root.OpenRoot(dir)
}

// Close lets go of the folder.
func (t *Target) Close() error { return t.root.Close() }

// Unpack unpacks an uncompressed tar into the folder, as the user that this
// process is: files, folders, links to what is in the folder, with their modes
// and times. Each file appears whole or not at all, in the place of what has
// its name, but for a folder. What no honest archive has (absolute names, "..",
// links that lead out, devices) is left out, as is what the filesystem refuses;
// the report tells each. A broken archive, and a filesystem that takes nothing
// any more, are errors.
func (t *Target) Unpack(ctx context.Context, archive io.Reader) (control.Unpacked, error) {
	sum := sha256.New()
	input := &archiveReader{ctx: ctx, from: archive, sum: sum}
	u := &unpacker{root: t.root, in: t.root, buffer: make([]byte, bufferSize)}
	defer u.leave()
	entries := tar.NewReader(input)
	for {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are judged below
			err = fmt.Errorf("%w: %w", errArchive, err)
		} else {
			err = u.entry(h, entries)
		}
		if err != nil {
			return u.report, u.explain(err, input.err)
		}
	}
	u.finish("")
	if _, err := io.Copy(io.Discard, input); err != nil { // what follows the end counts in the sum
		return u.report, u.explain(err, input.err)
	}
	u.report.SHA256 = sum.Sum(nil)
	return u.report, nil
}

// archiveReader remembers why an archive broke off, and sums up what came.
type archiveReader struct {
	ctx  context.Context //nolint:containedctx // of the one call that makes and ends the reader
	from io.Reader
	sum  hash.Hash
	err  error
}

func (r *archiveReader) Read(p []byte) (int, error) {
	err := r.ctx.Err()
	n := 0
	if err == nil {
		n, err = r.from.Read(p)
		r.sum.Write(p[:n])
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// unpacker unpacks one archive.
type unpacker struct {
	root   *os.Root // the folder
	at     string   // the folder below it where the last entry went
	in     *os.Root // that folder
	open   []folder // those around the current entry, outermost first
	buffer []byte
	report control.Unpacked
}

// folder is one whose mode and time are set when its last entry is there.
type folder struct {
	path     string
	mode     fs.FileMode
	accessed time.Time
	modified time.Time
}

// errArchive is wrapped by what makes an archive no archive.
var errArchive = errors.New("the archive is broken")

// explain makes the error that ended an archive one for people; broke is why
// the stream ended, if it did.
func (u *unpacker) explain(err, broke error) error {
	switch {
	case broke != nil:
		return fmt.Errorf("read archive: %w", broke)
	case full(err):
		return backendai.Errorf(backendai.CodeUnavailable, "the session's folder takes nothing more: %w", reason(err)).
			WithHint("%d files of the archive were written", u.report.Files)
	case errors.Is(err, errArchive):
		return backendai.Errorf(backendai.CodeInvalidParams, "what was sent is not a whole tar archive").
			WithHint("%d files of it were written", u.report.Files)
	default:
		return fmt.Errorf("unpack archive: %w", err)
	}
}

// full tells that nothing more can be written.
func full(err error) bool {
	for _, no := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// entry unpacks one entry. Only what ends the whole archive is an error.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		u.skip(h.Name, err)
		return nil
	}
	u.finish(name)
	err = u.make(h, name, content)
	switch {
	case err == nil:
		return nil
	case full(err) || errors.Is(err, errArchive):
		return err
	case escapes(err):
		err = errors.New("a link on the way leads out of the folder")
	}
	u.skip(h.Name, err)
	return nil
}

// cleanName is the name of an entry below the folder, "." for the folder itself.
func cleanName(name string) (string, error) {
	switch {
	case strings.HasPrefix(name, "/"):
		return "", errors.New("its name is absolute")
	case len(name) > maxArchiveName:
		return "", errors.New("its name is too long")
	case strings.Contains(name, "\x00"):
		return "", errors.New("its name holds a zero byte")
	case strings.Count(name, "/") > maxDepth:
		return "", fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New("its name leads out by \"..\"")
		}
	}
	return path.Clean(name), nil
}

// make makes what an entry says.
func (u *unpacker) make(h *tar.Header, name string, content io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return u.folder(h, name)
	}
	if name == "." {
		return errors.New("it has no name")
	}
	in, err := u.enter(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(in, base, h, content)
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) || !stays(path.Join(path.Dir(name), h.Linkname)) {
			return fmt.Errorf("it is a link that leads out, to %q", clip(h.Linkname))
		}
		return u.link(in, base, func(temp string) error { return in.Symlink(h.Linkname, temp) })
	case tar.TypeLink:
		return u.hardLink(h, name)
	case tar.TypeChar, tar.TypeBlock:
		return errors.New("it is a device")
	case tar.TypeFifo:
		return errors.New("it is a FIFO")
	default:
		return fmt.Errorf("it is of the unknown type %q", h.Typeflag)
	}
}

// stays tells whether a clean relative path stays where it starts.
func stays(p string) bool { return p != ".." && !strings.HasPrefix(p, "../") }

func clip(text string) string { return strings.ToValidUTF8(text[:min(len(text), 128)], "?") }

// enter opens the folder of an entry, which may be that of the one before.
func (u *unpacker) enter(dir string) (*os.Root, error) {
	switch dir {
	case ".":
		u.leave()
		return u.root, nil
	case u.at:
		return u.in, nil
	}
	in, err := openOrMake(u.root, dir)
	if err != nil {
		return nil, err
	}
	u.leave()
	u.at, u.in = dir, in
	return in, nil
}

// leave closes the folder of the last entry.
func (u *unpacker) leave() {
	if u.in != u.root {
		_ = u.in.Close() // it was only looked into
	}
	u.at, u.in = "", u.root
}

func (u *unpacker) folder(h *tar.Header, name string) error {
	if name == "." {
		return nil // it is there, and not the archive's to change
	}
	in, err := u.enter(path.Dir(name))
	if err != nil {
		return err
	}
	base, mode := path.Base(name), h.FileInfo().Mode().Perm()
	err = in.Mkdir(base, mode|0o700)
	if errors.Is(err, fs.ErrExist) {
		info, statErr := in.Stat(base) // a link to a folder stays
		if statErr != nil || !info.IsDir() {
			return errors.Join(errors.New("something that is no folder has its name"), statErr)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	u.report.Folders++
	accessed, modified := times(h)
	u.open = append(u.open, folder{name, mode, accessed, modified})
	return nil
}

// finish sets modes and times of the folders that name is not in.
func (u *unpacker) finish(name string) {
	for len(u.open) > 0 {
		last := u.open[len(u.open)-1]
		if strings.HasPrefix(name, last.path+"/") {
			return
		}
		u.open = u.open[:len(u.open)-1]
		err := u.root.Chmod(last.path, last.mode)
		if err == nil {
			err = u.root.Chtimes(last.path, last.accessed, last.modified)
		}
		if err != nil {
			u.skip(last.path, fmt.Errorf("its mode or time could not be set: %w", reason(err)))
		}
	}
}

// file writes a file beside its place and then over it.
func (u *unpacker) file(in *os.Root, base string, h *tar.Header, content io.Reader) error {
	if h.Size > maxSparse && holey(h) {
		return fmt.Errorf("it is a sparse file of more than %d bytes", int64(maxSparse))
	}
	temp := tempName()
	f, err := in.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = u.fill(f, content)
	if err == nil {
		err = f.Chmod(h.FileInfo().Mode().Perm())
	}
	if err == nil && (h.Size >= syncSize || u.report.Files < syncFiles) {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	accessed, modified := times(h)
	if err == nil {
		err = in.Chtimes(temp, accessed, modified)
	}
	if err == nil {
		err = in.Rename(temp, base)
	}
	if err != nil {
		_ = in.Remove(temp) // what went wrong is told already
		return err
	}
	u.report.Files++
	u.report.Bytes += h.Size
	return nil
}

// holey tells whether the archive holds a file without its holes.
func holey(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// fill writes the content. Long runs of zeros become holes.
func (u *unpacker) fill(f *os.File, content io.Reader) error {
	size := int64(0)
	for {
		n, err := readFull(content, u.buffer)
		if n > 0 && !bytes.Equal(u.buffer[:n], zeroBuffer[:n]) {
			if _, err := f.WriteAt(u.buffer[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return f.Truncate(size)
		case err != nil:
			return fmt.Errorf("%w: %w", errArchive, err)
		}
	}
}

var zeroBuffer [bufferSize]byte

// readFull reads until p is full or the stream ends, and says how it ended.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// link makes a link beside its place and then over it.
func (u *unpacker) link(in *os.Root, base string, create func(temp string) error) error {
	temp := tempName()
	if err := create(temp); err != nil {
		return err
	}
	if err := in.Rename(temp, base); err != nil {
		_ = in.Remove(temp) // as with files
		return err
	}
	u.report.Links++
	return nil
}

func (u *unpacker) hardLink(h *tar.Header, name string) error {
	old, err := cleanName(h.Linkname)
	if err != nil {
		return fmt.Errorf("it is a link that leads out, to %q", clip(h.Linkname))
	}
	// A rename onto the same file does nothing and would leave the other name.
	if a, err := u.root.Lstat(old); err == nil {
		if b, err := u.root.Lstat(name); err == nil && os.SameFile(a, b) {
			return nil
		}
	}
	dir := path.Dir(name)
	return u.link(u.in, path.Base(name), func(temp string) error { return u.root.Link(old, path.Join(dir, temp)) })
}

// skip reports what was left out.
func (u *unpacker) skip(name string, why error) {
	if len(u.report.Skipped) >= control.MaxSkipped {
		u.report.More++
		return
	}
	u.report.Skipped = append(u.report.Skipped, control.Skipped{Name: clip(name), Reason: reason(why).Error()})
}

// times are when a file of the archive was last read and changed.
func times(h *tar.Header) (accessed, modified time.Time) {
	if h.AccessTime.IsZero() {
		return h.ModTime, h.ModTime
	}
	return h.AccessTime, h.ModTime
}

// tempName is one that nobody else has, for a file that is not whole yet.
func tempName() string { return ".upload-" + rand.Text() }
