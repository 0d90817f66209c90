// Package dotfile keeps the small files and the script that users want in the
// home of every session of theirs. They belong to a keypair, as in the protocol.
package dotfile

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"backendai"
	"backendai/internal/control"
)

// File is one file below the home.
type File struct {
	Path       string
	Permission string // three octal digits
	Data       string
}

// Store is what the service keeps in the database.
type Store interface {
	// InsertDotfile fails with CodeInvalidParams when there is one of the path.
	InsertDotfile(ctx context.Context, accessKey string, f File) error
	// UpdateDotfile and DeleteDotfile fail with CodeNotFound when there is none.
	UpdateDotfile(ctx context.Context, accessKey string, f File) error
	DeleteDotfile(ctx context.Context, accessKey, path string) error
	// Dotfiles are in order of path.
	Dotfiles(ctx context.Context, accessKey string) ([]File, error)
	SetBootstrap(ctx context.Context, accessKey, script string) error
	Bootstrap(ctx context.Context, accessKey string) (string, error)
}

// API is what transports call; *Service implements it. The files are those of the
// caller's keypair.
type API interface {
	Create(ctx context.Context, caller backendai.Caller, f File) error
	Update(ctx context.Context, caller backendai.Caller, f File) error
	Delete(ctx context.Context, caller backendai.Caller, name string) error
	Get(ctx context.Context, caller backendai.Caller, name string) (File, error)
	List(ctx context.Context, caller backendai.Caller) ([]File, error)
	SetBootstrap(ctx context.Context, caller backendai.Caller, script string) error
	Bootstrap(ctx context.Context, accessKey string) (string, error)
}

var _ API = (*Service)(nil)

// The limits of a keypair's files (API section 8).
const (
	maxFiles  = 100
	maxTotal  = 64 << 10 // bytes of paths and contents
	maxScript = 64 << 10
	maxPath   = 512
)

// home is what paths may begin with.
const home = "/home/work/"

// reserved are paths that the platform, or a folder that mounts by itself, has.
var reserved = []string{".terminfo", ".jupyter", ".ssh", ".ssh/authorized_keys", ".local", ".config", "id_container", "bootstrap.sh"}

var permissionRE = regexp.MustCompile(`^[0-7]{3}$`)

// Service checks and keeps files. It is safe for concurrent use.
type Service struct {
	store Store
	// folders names the folders of a caller that mount by themselves.
	folders func(ctx context.Context, caller backendai.Caller) ([]string, error)
}

// New makes the service; folders names what mounts by itself for a caller.
func New(store Store, folders func(ctx context.Context, caller backendai.Caller) ([]string, error)) *Service {
	return &Service{store: store, folders: folders}
}

// Create keeps a new file.
func (s *Service) Create(ctx context.Context, caller backendai.Caller, f File) error {
	all, err := s.check(ctx, caller, &f)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(other File) bool { return other.Path == f.Path }) {
		return backendai.Errorf(backendai.CodeInvalidParams, "there is a dotfile %q already", f.Path).WithHint("'backend.ai dotfile update' changes it")
	}
	if err := fits(append(all, f)); err != nil {
		return err
	}
	return s.store.InsertDotfile(ctx, caller.Keypair.AccessKey, f)
}

// Update changes a file that is there.
func (s *Service) Update(ctx context.Context, caller backendai.Caller, f File) error {
	all, err := s.check(ctx, caller, &f)
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(all, func(other File) bool { return other.Path == f.Path })
	if err := fits(append(rest, f)); err != nil {
		return err
	}
	return missing(s.store.UpdateDotfile(ctx, caller.Keypair.AccessKey, f))
}

// Delete removes a file.
func (s *Service) Delete(ctx context.Context, caller backendai.Caller, name string) error {
	return missing(s.store.DeleteDotfile(ctx, caller.Keypair.AccessKey, clean(name)))
}

// Get is one file.
func (s *Service) Get(ctx context.Context, caller backendai.Caller, name string) (File, error) {
	all, err := s.List(ctx, caller)
	if err != nil {
		return File{}, err
	}
	for _, f := range all {
		if f.Path == clean(name) {
			return f, nil
		}
	}
	return File{}, missing(backendai.NotFound("dotfile", name))
}

// List is all files of the caller, in order of path.
func (s *Service) List(ctx context.Context, caller backendai.Caller) ([]File, error) {
	return s.store.Dotfiles(ctx, caller.Keypair.AccessKey)
}

func missing(err error) error {
	if backendai.CodeOf(err) != backendai.CodeNotFound {
		return err
	}
	return backendai.Errorf(backendai.CodeNotFound, "%w", err).WithHint("'backend.ai dotfile list' shows yours")
}

// SetBootstrap keeps the script that runs in new sessions before their services start.
func (s *Service) SetBootstrap(ctx context.Context, caller backendai.Caller, script string) error {
	if len(script) > maxScript {
		return backendai.Errorf(backendai.CodeInvalidParams, "the script has %s, which is more than %s", backendai.FormatSize(int64(len(script))), backendai.FormatSize(maxScript)).
			WithHint("put what is large into a folder and call it from the script")
	}
	return s.store.SetBootstrap(ctx, caller.Keypair.AccessKey, script)
}

// Bootstrap is the script of a keypair; empty when there is none.
func (s *Service) Bootstrap(ctx context.Context, accessKey string) (string, error) {
	return s.store.Bootstrap(ctx, accessKey)
}

// Files are what a runner is to write into the home of a keypair's session.
func (s *Service) Files(ctx context.Context, accessKey string) ([]control.File, error) {
	all, err := s.store.Dotfiles(ctx, accessKey)
	if err != nil {
		return nil, err
	}
	files := make([]control.File, 0, len(all))
	for _, f := range all {
		mode, err := strconv.ParseUint(f.Permission, 8, 9)
		if err != nil {
			return nil, err
		}
		files = append(files, control.File{Path: f.Path, Mode: uint32(mode), Data: []byte(f.Data)})
	}
	return files, nil
}

// clean gives a path below the home.
func clean(name string) string { return path.Clean(strings.TrimPrefix(name, home)) }

// check cleans a file and refuses what cannot be; it gives those that are there.
func (s *Service) check(ctx context.Context, caller backendai.Caller, f *File) ([]File, error) {
	name := strings.TrimPrefix(f.Path, home)
	refuse := func(why string) error {
		return backendai.Errorf(backendai.CodeInvalidParams, "%q cannot be a dotfile: %s", f.Path, why).
			WithHint("a path is relative to the home of the session, such as .bashrc or .config/git/config").
			WithData(map[string]string{"path": why})
	}
	switch {
	case name == "" || len(name) > maxPath || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, refuse("it is not a path")
	case path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), ".."):
		return nil, refuse("it is outside of the home")
	case !permissionRE.MatchString(f.Permission):
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the permission %q is not three octal digits such as 644", f.Permission).
			WithData(map[string]string{"permission": "is not three octal digits"})
	}
	f.Path = path.Clean(name)
	if f.Path == "." || slices.Contains(reserved, f.Path) {
		return nil, refuse("it is reserved")
	}
	folders, err := s.folders(ctx, caller)
	if err != nil {
		return nil, err
	}
	if slices.Contains(folders, f.Path) {
		return nil, refuse("a folder of this name mounts there")
	}
	return s.List(ctx, caller)
}

// fits refuses more files, or more in them, than a keypair may have.
func fits(files []File) error {
	total := 0
	for _, f := range files {
		total += len(f.Path) + len(f.Data)
		for _, other := range files {
			if strings.HasPrefix(other.Path, f.Path+"/") {
				return backendai.Errorf(backendai.CodeInvalidParams, "%q cannot be a dotfile: there is %q, which is below it", f.Path, other.Path)
			}
		}
	}
	if len(files) > maxFiles {
		return backendai.Errorf(backendai.CodeInvalidParams, "a keypair may have %d dotfiles at most", maxFiles).WithHint("put them into a folder whose name begins with a dot")
	}
	if total > maxTotal {
		return backendai.Errorf(backendai.CodeInvalidParams, "all dotfiles together would have %s, which is more than %s", backendai.FormatSize(int64(total)), backendai.FormatSize(maxTotal)).
			WithHint("put what is large into a folder")
	}
	return nil
}
