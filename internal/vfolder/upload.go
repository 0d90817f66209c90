package vfolder

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"backendai"
	"backendai/internal/archive"
)

// The files in the directory of an upload.
const (
	metaFile    = "session.json"
	contentFile = "content"
	partPrefix  = "part."
)

// The limits of uploads.
const (
	maxParts   = 1024
	maxUploads = 1000 // unfinished in one folder
)

// UploadRequest is a file that is to come.
type UploadRequest struct {
	Path string
	Size int64
	// Resume tells files apart that have the same path and size, such as by
	// their time: an upload of the same user that was broken off goes on. Empty
	// always begins anew.
	Resume   string
	Mode     fs.FileMode // 0 is the usual one
	Modified time.Time   // zero is the time of the upload
}

// Upload is the permission to send one file, and what has come of it already.
type Upload struct {
	Token string
	ID    string // empty when there is nothing to send
	Parts []Part
}

// Part is a piece of a file that is sent by itself.
type Part struct {
	ID       string
	Position int64 // in the file
	Length   int64
	Offset   int64 // how much of it is here
}

// upload is one file on its way. Its directory has all that is needed to go on
// after a crash; this is what the process knows of it.
type upload struct {
	id  string
	dir string

	mu      sync.Mutex
	meta    meta
	parts   map[string]*part // by id; the whole file is ""
	into    string           // a directory that the address names beside the token's path
	done    bool
	release func() // the room in the quota
	active  time.Time
	tree    *archive.Tree // of the bytes of parts that have come in this process
	arrived atomic.Int64  // bytes that are here
}

// meta is what is known of an upload from its beginning.
type meta struct {
	User     string    `json:"user"`
	Path     string    `json:"path"` // below what the user sees of the folder
	Size     int64     `json:"size"`
	Resume   string    `json:"resume,omitempty"`
	Mode     uint32    `json:"mode"`
	Modified time.Time `json:"modified,omitzero"`
	Turn     uint64    `json:"turn"`
}

// uploads are those that the process knows of.
type uploads struct {
	mu    sync.Mutex
	known map[string]*upload // by id
}

// RequestUpload begins to take a file, or goes on with one that was broken off.
// An empty file is made at once.
func (s *Service) RequestUpload(ctx context.Context, caller backendai.Caller, ref string, req UploadRequest) (Upload, error) {
	v, err := s.usable(ctx, caller, ref, backendai.ReadWrite)
	if err != nil {
		return Upload{}, err
	}
	clean, err := cleanFile(req.Path)
	if err != nil {
		return Upload{}, err
	}
	if req.Size < 0 {
		return Upload{}, backendai.Errorf(backendai.CodeInvalidParams, "the size %d is less than nothing", req.Size)
	}
	m := meta{User: caller.User.ID, Path: clean, Size: req.Size, Resume: req.Resume, Mode: uint32(cmp.Or(req.Mode.Perm(), usualMode(v))), Modified: req.Modified}
	u, err := s.begin(ctx, v, m)
	if err != nil {
		return Upload{}, err
	}
	c := claims{Op: opUpload, Volume: v.Host, Folder: v.Hex(), Path: clean, User: caller.User.ID, Key: caller.Keypair.AccessKey, Session: u.id, Size: req.Size, Turn: u.meta.Turn}
	answer := Upload{ID: u.id, Parts: u.pieces()}
	if req.Size == 0 {
		answer = Upload{}
		if err := s.publish(ctx, v, u); err != nil {
			return Upload{}, errors.Join(err, s.drop(u))
		}
	}
	answer.Token, err = s.sign(c)
	return answer, err
}

// usualMode is the mode of files that come without one.
func usualMode(v View) fs.FileMode {
	if v.Name == ".ssh" {
		return 0o600
	}
	return 0o644
}

// begin finds the upload that was broken off, or makes one.
func (s *Service) begin(ctx context.Context, v View, m meta) (*upload, error) {
	dir, err := s.folderDir(ctx, v.VFolder)
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, stagingDir)
	id := newUploadID(v.ID, m)
	if m.Resume != "" {
		u, err := s.again(ctx, v, dir, id)
		if err != nil || u != nil {
			return u, err
		}
	}
	old, err := s.sizeOf(ctx, v, m.Path)
	if err != nil {
		return nil, err
	}
	if free, _, err := freeSpace(s.opts.Hosts[v.Host]); err == nil && free < m.Size {
		return nil, backendai.Errorf(backendai.CodeVFolderFailed, "the storage of the folder %q has %s left, which is less than the %s of %q",
			v.Name, backendai.FormatSize(free), backendai.FormatSize(m.Size), m.Path).
			WithHint("remove files that you do not need, or ask the administrator for room")
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) >= maxUploads {
		return nil, backendai.Errorf(backendai.CodeVFolderFailed, "%d uploads to the folder %q are not finished", len(entries), v.Name).
			WithHint("finish them; those that nobody goes on with are forgotten after two days")
	}
	release, err := s.reserve(ctx, v.VFolder, m.Size-old)
	if err != nil {
		return nil, err
	}
	u := &upload{id: id, dir: filepath.Join(dir, id), meta: m, release: release, active: s.now(), parts: map[string]*part{}, tree: archive.NewTree(m.Size)}
	if err := u.create(); err != nil {
		release()
		return nil, errors.Join(fullDisk(v.Name, err), os.RemoveAll(u.dir))
	}
	s.uploads.keep(u)
	return u, nil
}

// newUploadID is random, or the same for the same file of the same user.
func newUploadID(folder string, m meta) string {
	if m.Resume == "" {
		return randomID()
	}
	h := sha256.New()
	for _, text := range []string{folder, m.User, m.Path, strconv.FormatInt(m.Size, 10), m.Resume} {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// again takes up an upload that was broken off; nil when there is none. Whoever
// holds an earlier token of it cannot go on any more.
func (s *Service) again(ctx context.Context, v View, dir, id string) (*upload, error) {
	u, err := s.load(ctx, v, dir, id)
	if backendai.CodeOf(err) == backendai.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	if u.done {
		u.mu.Unlock()
		return nil, nil
	}
	u.meta.Turn++
	u.active = s.now()
	err = u.writeMeta()
	names := []string{u.id}
	for id := range u.parts {
		if id != "" {
			names = append(names, u.id+"/"+id)
		}
	}
	u.mu.Unlock()
	if err != nil {
		return nil, fullDisk(v.Name, err)
	}
	return u, s.interrupt(ctx, names)
}

// interruptTime bounds how long requests may take to end that are interrupted.
const interruptTime = 5 * time.Second

// interrupt ends the requests for uploads and parts that are on their way, so
// that what is here of them is certain.
func (s *Service) interrupt(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, interruptTime)
	defer cancel()
	for _, name := range names {
		lock, err := s.locks.NewLock(name)
		if err == nil {
			err = lock.Lock(ctx, func() {})
		}
		if err != nil {
			return backendai.Errorf(backendai.CodeUnavailable, "an earlier upload of the file does not end: %w", err).WithHint("try again in a while")
		}
		if err := lock.Unlock(); err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is how many bytes an upload will replace.
func (s *Service) sizeOf(ctx context.Context, v View, name string) (int64, error) {
	root, err := s.content(ctx, v)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, explain(v.Name, name, err)
	case info.IsDir():
		return 0, backendai.Errorf(backendai.CodeVFolderFailed, "%q in the folder %q is a directory", name, v.Name).
			WithHint("choose another name, or remove the directory first")
	case info.Mode().IsRegular():
		return info.Size(), nil
	}
	return 0, nil
}

// create makes the upload's directory. The content has its whole length at once,
// without taking room: parts are written where they belong, and zeros never are.
func (u *upload) create() error {
	if err := os.Mkdir(u.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(filepath.Join(u.dir, contentFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(u.meta.Size), f.Close()); err != nil {
		return err
	}
	if err := u.addPart("", 0, u.meta.Size); err != nil {
		return err
	}
	return u.writeMeta()
}

func (u *upload) writeMeta() error {
	text, err := json.Marshal(u.meta)
	if err != nil {
		return err
	}
	next := filepath.Join(u.dir, metaFile+".new")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(u.dir, metaFile))
}

// keep remembers an upload.
func (u *uploads) keep(one *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known == nil {
		u.known = map[string]*upload{}
	}
	u.known[one.id] = one
}

func (u *uploads) get(id string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.known[id]
}

func (u *uploads) forget(one *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known[one.id] == one {
		delete(u.known, one.id)
	}
}

// load gives an upload that the process knows, or reads it from its directory.
func (s *Service) load(ctx context.Context, v View, dir, id string) (*upload, error) {
	if u := s.uploads.get(id); u != nil {
		return u, nil
	}
	gone := backendai.NotFound("upload", id).WithHint("it is finished, or nobody went on with it for two days; begin again")
	if !validUploadID(id) {
		return nil, gone
	}
	u := &upload{id: id, dir: filepath.Join(dir, id), active: s.now(), parts: map[string]*part{}}
	text, err := os.ReadFile(filepath.Join(u.dir, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gone
	}
	if err != nil {
		return nil, s.lost(v.VFolder, err)
	}
	if err := json.Unmarshal(text, &u.meta); err != nil {
		return nil, s.lost(v.VFolder, err)
	}
	u.tree = archive.NewTree(u.meta.Size)
	if info, err := os.Stat(filepath.Join(u.dir, contentFile)); err != nil || info.Size() != u.meta.Size {
		return nil, gone // it was published when the server ended
	}
	entries, err := os.ReadDir(u.dir)
	if err != nil {
		return nil, s.lost(v.VFolder, err)
	}
	for _, e := range entries {
		part, ok := strings.CutPrefix(e.Name(), partPrefix)
		if !ok {
			continue
		}
		p, err := readPart(filepath.Join(u.dir, e.Name()), part)
		if err != nil {
			return nil, s.lost(v.VFolder, err)
		}
		if p != nil {
			u.parts[part] = p
			u.arrived.Add(p.Offset)
		}
	}
	if u.parts[""] == nil {
		return nil, gone
	}
	if u.release, err = s.hold(ctx, v, u.meta); err != nil {
		return nil, err
	}
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	if other := s.uploads.known[id]; other != nil { // another request was faster
		u.release()
		return other, nil
	}
	if s.uploads.known == nil {
		s.uploads.known = map[string]*upload{}
	}
	s.uploads.known[id] = u
	return u, nil
}

// hold takes the room that an upload got before this process began.
func (s *Service) hold(ctx context.Context, v View, m meta) (func(), error) {
	old, err := s.sizeOf(ctx, v, m.Path)
	if err != nil {
		return nil, err
	}
	return s.usage.take(v.ID, m.Size-old), nil
}

// publish puts a complete upload in its place, by one rename, and on the disk.
// The file that was there is replaced; links are replaced, not followed.
func (s *Service) publish(ctx context.Context, v View, u *upload) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done {
		return nil
	}
	root, err := s.content(ctx, v)
	if err != nil {
		return err
	}
	defer root.Close()
	name := path.Join(u.into, u.meta.Path)
	parent := path.Dir(name)
	if err := makeDirs(root, parent); err != nil {
		return explain(v.Name, parent, err)
	}
	target, err := openDir(root, parent)
	if err != nil {
		return explain(v.Name, parent, err)
	}
	defer target.Close()
	file := filepath.Join(u.dir, contentFile)
	if err := finish(file, fs.FileMode(u.meta.Mode), cmp.Or(u.meta.Modified, s.now())); err != nil {
		return fullDisk(v.Name, err)
	}
	staging, err := os.Open(u.dir)
	if err != nil {
		return s.lost(v.VFolder, err)
	}
	defer staging.Close()
	var old int64
	var files int64 = 1
	if n, err := look(target, path.Base(name)); err == nil {
		files = 0
		if n.mode.IsRegular() && n.links == 1 {
			old = n.size
		}
	}
	if err := renameAt(staging, contentFile, target, path.Base(name)); err != nil {
		return explain(v.Name, name, err)
	}
	if err := target.Sync(); err != nil && !unsyncable(err) {
		return fullDisk(v.Name, err)
	}
	s.usage.add(v.ID, u.meta.Size-old, files)
	u.done = true
	return s.dropLocked(u)
}

// finish gives a file its owner, mode and time and puts it on the disk.
func finish(file string, mode fs.FileMode, at time.Time) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		err = f.Chown(contentID, contentID)
	}
	return errors.Join(err, f.Chmod(mode.Perm()), os.Chtimes(file, at, at), f.Sync(), f.Close())
}

// drop forgets an upload and deletes its directory.
func (s *Service) drop(u *upload) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = true
	return s.dropLocked(u)
}

func (s *Service) dropLocked(u *upload) error {
	s.uploads.forget(u)
	u.release()
	if err := os.RemoveAll(u.dir); err != nil {
		return fmt.Errorf("remove upload %s: %w", u.id, err)
	}
	return nil
}

// validUploadID guards the names of directories.
func validUploadID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 16 && strings.ToLower(id) == id
}

func randomID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
