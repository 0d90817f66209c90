package backendai

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Permission is what someone may do in a folder.
type Permission string

// The permissions of folders, each with all that the ones before it allow.
const (
	ReadOnly    Permission = "ro"
	ReadWrite   Permission = "rw"
	WriteDelete Permission = "wd"
)

// ParsePermission reads a permission under the names that the clients use.
func ParsePermission(text string) (Permission, error) {
	switch p := Permission(strings.ToLower(text)); p {
	case ReadOnly, ReadWrite, WriteDelete:
		return p, nil
	default:
		return "", Errorf(CodeInvalidParams, "%q is not a permission", text).WithHint("the permissions are ro, rw and wd")
	}
}

func (p Permission) rank() int {
	return slices.Index([]Permission{ReadOnly, ReadWrite, WriteDelete}, p)
}

// Allows tells whether p has all that q allows.
func (p Permission) Allows(q Permission) bool { return p.rank() >= q.rank() }

// UsageMode says what a folder is for. It changes nothing but what lists show.
type UsageMode string

// The usage modes.
const (
	UsageGeneral UsageMode = "general"
	UsageModel   UsageMode = "model"
	UsageData    UsageMode = "data"
)

// ParseUsageMode reads a usage mode.
func ParseUsageMode(text string) (UsageMode, error) {
	switch m := UsageMode(strings.ToLower(text)); m {
	case UsageGeneral, UsageModel, UsageData:
		return m, nil
	default:
		return "", Errorf(CodeInvalidParams, "%q is not a usage mode", text).WithHint("the usage modes are general, model and data")
	}
}

// FolderStatus is where a folder is in its life.
type FolderStatus string

// The statuses of folders (API section 7.1).
const (
	FolderReady   FolderStatus = "ready"
	FolderCloning FolderStatus = "cloning"
	FolderTrashed FolderStatus = "delete-pending"
	FolderDeleted FolderStatus = "delete-complete" // the files are gone, the record is still there
	FolderError   FolderStatus = "error"
)

// VFolder is a directory that outlives sessions and is mounted into them. It
// belongs to a user, or to a project when Group is set.
type VFolder struct {
	ID         string // UUID in its dashed form
	Name       string // unique among the folders of its owner that are not in the trash
	Host       string // of the storage: local:default
	Domain     string
	UserID     string // the owner; empty for a project's
	Group      string // the project that owns it; empty for a user's
	Creator    string // email
	UsageMode  UsageMode
	Permission Permission // the most that anyone has in it
	Cloneable  bool
	MaxSize    int64 // bytes; 0 is no limit of its own
	Status     FolderStatus
	StatusInfo string // why it is in the status FolderError
	CreatedAt  time.Time
	LastUsed   time.Time
	TrashedAt  time.Time
	// UsedBytes and UsedFiles are what was in it when it was last measured.
	UsedBytes, UsedFiles int64
}

// Usable tells whether the folder can be read, written and mounted.
func (f *VFolder) Usable() bool { return f.Status == FolderReady }

// maxFolderName bounds the names of folders, in bytes.
const maxFolderName = 64

var (
	folderNameRE = regexp.MustCompile(`^\.?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	uuidRE       = regexp.MustCompile(`(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$`)
	// shellFileRE are files that shells read in the home: a folder in their place
	// would break every shell of every session.
	shellFileRE = regexp.MustCompile(`^\.([a-z0-9]+rc|[a-z0-9]+_profile|profile|tmux\.conf)$`)
)

// ValidateFolderName holds the name rule of API section 7.1, without its ban of
// names such as .ssh.
func ValidateFolderName(name string) error {
	invalid := func(hint string) error {
		return Errorf(CodeInvalidParams, "invalid folder name %q", name).WithHint("%s", hint).
			WithData(map[string]string{"name": "invalid folder name"})
	}
	switch {
	case len(name) > maxFolderName || !folderNameRE.MatchString(name):
		return invalid("a name has up to 64 letters, digits, dots, dashes or underscores, begins with a letter, a digit or one dot, and ends with a letter or digit")
	case uuidRE.MatchString(name):
		return invalid("it looks like the id of a folder")
	case shellFileRE.MatchString(name):
		return invalid("shells expect a file of this name in the home of a session")
	}
	return nil
}

// FolderID gives the dashed form of a folder's UUID when text is one in its
// dashed or hexadecimal form.
func FolderID(text string) (id string, ok bool) {
	if !uuidRE.MatchString(text) {
		return "", false
	}
	h := strings.ToLower(strings.ReplaceAll(text, "-", ""))
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], true
}

// Hex is the folder's id without dashes, as the protocol writes it.
func (f *VFolder) Hex() string { return strings.ReplaceAll(f.ID, "-", "") }

// Hidden tells whether the folder mounts by itself: its name begins with a dot.
func (f *VFolder) Hidden() bool { return strings.HasPrefix(f.Name, ".") }

// homeDir is the home in every session.
const homeDir = "/home/work"

// MountTarget is where a folder is mounted when nobody says where.
func MountTarget(name string) string {
	if name == ".linuxbrew" {
		return "/home/linuxbrew/.linuxbrew"
	}
	return path.Join(homeDir, name)
}

// reservedTargets must keep what the image or the platform has there;
// reservedTrees also in all that is below them.
var (
	reservedTargets = []string{"/", homeDir, "/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/usr", "/var"}
	reservedTrees   = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt/kernel", "/proc", "/root", "/run", "/sbin", "/sys", "/usr/bin", "/usr/lib", "/usr/sbin", "/var/run"}
)

// ParseMountSource splits what is asked to be mounted into the folder's name or
// id and a path below it, which is empty for the whole folder.
func ParseMountSource(source string) (folder, subpath string, err error) {
	folder, rest, _ := strings.Cut(source, "/")
	if folder == "" || strings.ContainsRune(source, 0) {
		return "", "", Errorf(CodeInvalidParams, "the mount %q names no folder", source).WithHint("write NAME, or NAME/PATH for a part of the folder")
	}
	subpath = path.Clean("/" + rest)[1:]
	if slices.Contains(strings.Split(rest, "/"), "..") {
		return "", "", Errorf(CodeInvalidParams, "the mount %q leads out of the folder", source).WithHint("a path below a folder has no ..")
	}
	return folder, subpath, nil
}

// ParseMountTarget makes a target absolute and clean, and refuses what must not
// be covered by a folder.
func ParseMountTarget(target string) (string, error) {
	refuse := func(why, hint string) error {
		return Errorf(CodeInvalidParams, "the mount target %q %s", target, why).WithHint("%s", hint)
	}
	if target == "" || strings.ContainsFunc(target, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", refuse("is not a path", "give a path without control characters")
	}
	clean := target
	if !path.IsAbs(clean) {
		clean = homeDir + "/" + clean
	}
	clean = path.Clean(clean)
	if len(clean) > 4000 {
		return "", refuse("is too long", "a path has at most 4000 bytes")
	}
	for _, part := range strings.Split(clean, "/") {
		if len(part) > 255 {
			return "", refuse("has a name that is too long", "each part of a path has at most 255 bytes")
		}
	}
	if slices.Contains(reservedTargets, clean) {
		return "", refuse("is reserved", "mount at a path of its own, such as /home/work/data or /data")
	}
	for _, tree := range reservedTrees {
		if clean == tree || strings.HasPrefix(clean, tree+"/") {
			return "", refuse("is reserved", tree+" belongs to the system of the session; mount below /home/work or at a path of its own such as /data")
		}
	}
	return clean, nil
}

// Overlap tells whether two clean paths are the same or one lies below the other.
func Overlap(a, b string) bool {
	return a == b || a == "" || b == "" || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}
