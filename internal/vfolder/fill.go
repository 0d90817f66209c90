package vfolder

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"backendai"
	"backendai/internal/archive"
)

// fillPrefix begins the names of the staging directories of streams. They do not
// outlive the process.
const fillPrefix = "fill."

// fills are the staging directories of the streams that are being taken.
type fills struct {
	mu   sync.Mutex
	live map[string]bool // by path
}

func (f *fills) set(dir string, live bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live == nil {
		f.live = map[string]bool{}
	}
	if live {
		f.live[dir] = true
	} else {
		delete(f.live, dir)
	}
}

func (f *fills) has(dir string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live[dir]
}

// RequestFill gives a token to put many files into a directory by one stream.
func (s *Service) RequestFill(ctx context.Context, caller backendai.Caller, ref, dir string) (token string, err error) {
	v, err := s.usable(ctx, caller, ref, backendai.ReadWrite)
	if err != nil {
		return "", err
	}
	clean, err := cleanPath(dir)
	if err != nil {
		return "", err
	}
	return s.sign(claims{Op: opFill, Volume: v.Host, Folder: v.Hex(), Path: clean, User: caller.User.ID, Key: caller.Keypair.AccessKey})
}

// Filled is what a stream has brought.
type Filled struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// ServeFill unpacks the stream that is the body of a request.
func (s *Service) ServeFill(w http.ResponseWriter, r *http.Request, token string) (Filled, error) {
	ctx := r.Context()
	c, err := s.verify(token, opFill)
	if err != nil {
		return Filled{}, err
	}
	v, err := s.holder(ctx, c, backendai.ReadWrite)
	if err != nil {
		return Filled{}, err
	}
	f, err := s.newFiller(ctx, v, c.Path)
	if err != nil {
		return Filled{}, err
	}
	err = f.take(ctx, steadyBody{http.NewResponseController(w), r.Body})
	return f.filled, errors.Join(err, f.close())
}

// steadyBody gives up a body from which nothing comes for a while.
type steadyBody struct {
	rc *http.ResponseController
	io.Reader
}

// Read implements io.Reader.
func (b steadyBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(silence)) // what has no deadlines belongs to a test
	return b.Reader.Read(p)
}

// filler puts the files of a stream into a directory. They are written aside and
// moved to their places at the checkpoints of the stream.
type filler struct {
	s       *Service
	v       View
	root    *os.Root // where the stream goes
	dir     string   // the staging directory
	staging *os.File

	parents  directories
	pending  []arrival
	folders  []arrival // whose modes and times are set last
	next     int
	reserved int64 // bytes of the quota that are not used yet
	filled   Filled
}

// arrival is a file that waits for its checkpoint, or a directory for the end.
type arrival struct {
	temp, name string
	size       int64
	mode       fs.FileMode
	at         time.Time
}

func (s *Service) newFiller(ctx context.Context, v View, into string) (_ *filler, err error) {
	content, err := s.content(ctx, v)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	if err := makeDirs(content, into); err != nil {
		return nil, explain(v.Name, into, err)
	}
	f := &filler{s: s, v: v, parents: directories{}}
	if f.root, err = content.OpenRoot(into); err != nil {
		return nil, explain(v.Name, into, err)
	}
	folder, err := s.folderDir(ctx, v.VFolder)
	if err != nil {
		return nil, errors.Join(err, f.root.Close())
	}
	f.dir = filepath.Join(folder, stagingDir, fillPrefix+randomID())
	s.fills.set(f.dir, true)
	if err = os.Mkdir(f.dir, 0o700); err == nil {
		f.staging, err = os.Open(f.dir)
	}
	if err != nil {
		return nil, errors.Join(fullDisk(v.Name, err), f.close())
	}
	return f, nil
}

// close gives back what the stream held; files without a checkpoint are gone.
func (f *filler) close() error {
	f.parents.close()
	if f.staging != nil {
		f.staging.Close()
	}
	f.root.Close()
	f.s.usage.move(f.v.ID, 0, 0, f.reserved)
	err := os.RemoveAll(f.dir)
	f.s.fills.set(f.dir, false)
	return err
}

// take unpacks the stream.
func (f *filler) take(ctx context.Context, stream io.Reader) error {
	r := archive.NewReader(stream, func() error { return f.place(ctx) })
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return f.finish()
		}
		if err != nil {
			return f.explain(err)
		}
		if h.Name == "." && h.Typeflag != tar.TypeDir {
			return f.explain(&archive.EntryError{Name: h.Name, Reason: "is the folder itself"})
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = f.folder(h)
		case tar.TypeSymlink:
			err = f.link(h)
		default:
			err = f.file(ctx, h, r)
		}
		if err != nil {
			return err
		}
	}
}

// explain makes an error of the stream one for people.
func (f *filler) explain(err error) error {
	if _, ok := errors.AsType[*backendai.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*archive.EntryError](err); ok {
		return backendai.Errorf(backendai.CodeInvalidParams, "the archive is refused: %q %s", shorten(e.Name), e.Reason).
			WithHint("it may have files, directories and links that stay below it")
	}
	return backendai.Errorf(backendai.CodeBadRequest, "the archive did not arrive whole: %w", err).
		WithHint("send it again; what is here already need not be sent")
}

func (f *filler) folder(h *tar.Header) error {
	if err := makeDirs(f.root, h.Name); err != nil {
		return explain(f.v.Name, h.Name, err)
	}
	if h.Name == "." {
		return nil
	}
	f.folders = append(f.folders, arrival{name: h.Name, mode: h.FileInfo().Mode().Perm(), at: h.ModTime})
	if len(f.folders) < mostFolders {
		return nil
	}
	return f.dressFolders()
}

// mostFolders bounds the directories that are remembered for the end of a stream.
const mostFolders = 64 << 10

// dressFolders sets the modes and times of directories, the deepest first.
func (f *filler) dressFolders() error {
	for i := len(f.folders) - 1; i >= 0; i-- {
		d := f.folders[i]
		if err := errors.Join(f.root.Chmod(d.name, d.mode|0o700), f.root.Chtimes(d.name, d.at, d.at)); err != nil {
			return explain(f.v.Name, d.name, err)
		}
	}
	f.folders = f.folders[:0]
	return nil
}

func (f *filler) temp() string {
	f.next++
	return strconv.Itoa(f.next)
}

func (f *filler) link(h *tar.Header) error {
	temp := f.temp()
	if err := symlinkAt(h.Linkname, f.staging, temp, h.ModTime); err != nil {
		return fullDisk(f.v.Name, err)
	}
	f.pending = append(f.pending, arrival{temp: temp, name: h.Name})
	return nil
}

func (f *filler) file(ctx context.Context, h *tar.Header, content io.Reader) error {
	if err := f.afford(ctx, h); err != nil {
		return err
	}
	temp := f.temp()
	file, err := createAt(f.staging, temp)
	if err != nil {
		return fullDisk(f.v.Name, err)
	}
	defer file.Close()
	n, readErr, err := copySparse(file, content)
	switch {
	case err != nil:
		return fullDisk(f.v.Name, err)
	case readErr != nil || n != h.Size:
		return f.explain(errors.Join(readErr, archive.ErrTruncated))
	}
	if err := dress(f.staging, temp, file, h.FileInfo().Mode().Perm(), h.ModTime); err != nil {
		return fullDisk(f.v.Name, err)
	}
	f.pending = append(f.pending, arrival{temp: temp, name: h.Name, size: h.Size})
	return nil
}

// copySparse writes what comes and leaves holes for zeros. It tells what went
// wrong with reading and with writing apart.
func copySparse(file *os.File, content io.Reader) (n int64, readErr, writeErr error) {
	block := blocks.Get().([]byte) //nolint:forcetypeassert // the pool has nothing else
	defer blocks.Put(block)        //nolint:staticcheck // its header is small against what it holds
	var flushed, end int64
	for {
		got, err := content.Read(block)
		if got > 0 {
			last, err := archive.WriteSparse(file, block[:got], n)
			if err != nil {
				return n, nil, err
			}
			n += int64(got)
			end = max(end, last)
		}
		if n-flushed >= archive.WritebackStep {
			archive.StartWriteback(file, flushed, n-flushed)
			flushed = n
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, err, nil
		}
	}
	if end < n { // it ends in zeros
		return n, nil, file.Truncate(n)
	}
	return n, nil, nil
}

// budgetStep is how much of the quota a stream takes at a time.
const budgetStep = 4 << 20

// afford refuses a file that does not fit.
func (f *filler) afford(ctx context.Context, h *tar.Header) error {
	if h.Size >= budgetStep {
		if free, _, err := freeSpace(f.s.opts.Hosts[f.v.Host]); err == nil && free < h.Size {
			return backendai.Errorf(backendai.CodeVFolderFailed, "the storage of the folder %q has %s left, which is less than the %s of %q",
				f.v.Name, backendai.FormatSize(free), backendai.FormatSize(h.Size), shorten(h.Name))
		}
	}
	if f.s.quota(f.v.VFolder) == 0 && f.s.opts.UserQuota == 0 {
		return nil
	}
	need := h.Size - f.reserved
	for _, p := range f.pending {
		need += p.size
	}
	if parent, err := f.parent(path.Dir(h.Name)); err == nil {
		if n, err := look(parent, path.Base(h.Name)); err == nil && n.mode.IsRegular() {
			need -= n.size
		}
	}
	if need <= 0 {
		return nil
	}
	step := max(need, budgetStep)
	_, err := f.s.reserve(ctx, f.v.VFolder, step)
	if backendai.CodeOf(err) == backendai.CodeQuota && step > need {
		step = need
		_, err = f.s.reserve(ctx, f.v.VFolder, step)
	}
	if err == nil {
		f.reserved += step
	}
	return err
}

// parent opens the directory of a name, which is made if it is missing.
func (f *filler) parent(name string) (*os.File, error) {
	if dir := f.parents[name]; dir != nil {
		return dir, nil
	}
	if err := makeDirs(f.root, name); err != nil {
		return nil, explain(f.v.Name, name, err)
	}
	dir, err := f.parents.open(f.root, name)
	if err != nil {
		return nil, explain(f.v.Name, name, err)
	}
	return dir, nil
}

// place moves what waits for its checkpoint to its place. The folder may have
// been deleted, or taken away from the user, meanwhile.
func (f *filler) place(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fresh, err := f.s.store.Folder(ctx, f.v.ID)
	if err != nil {
		return err
	}
	if !fresh.Usable() {
		return backendai.NotFound("folder", f.v.Name).WithHint("it was deleted meanwhile")
	}
	for _, p := range f.pending {
		dir, err := f.parent(path.Dir(p.name))
		if err != nil {
			return err
		}
		var old, files int64 = 0, 1
		if n, err := look(dir, path.Base(p.name)); err == nil {
			files = 0
			if n.mode.IsRegular() && n.links == 1 {
				old = n.size
			}
		}
		if err := renameAt(f.staging, p.temp, dir, path.Base(p.name)); err != nil {
			return explain(f.v.Name, p.name, err)
		}
		used := min(p.size, f.reserved)
		f.reserved -= used
		f.s.usage.move(f.v.ID, p.size-old, files, used)
		f.filled.Files++
		f.filled.Bytes += p.size
	}
	f.pending = f.pending[:0]
	return nil
}

// finish has all on the disk.
func (f *filler) finish() error {
	if err := f.dressFolders(); err != nil {
		return err
	}
	if err := syncAll(f.staging); err != nil {
		return fmt.Errorf("write the files of folder %s to the disk: %w", f.v.ID, err)
	}
	return nil
}
