package vfolder

import (
	"errors"
	"path"
	"strings"

	"backendai"
)

const (
	maxPath = 4095 // bytes, as the kernel takes
	maxName = 255
)

// cleanPath makes what a user names relative to the folder: "." is the folder
// itself. A slash at the beginning stands for the folder; ".." is refused.
func cleanPath(name string) (string, error) {
	refuse := func(why string) error {
		return backendai.Errorf(backendai.CodeInvalidParams, "%q is no path in a folder: %s", shorten(name), why).
			WithHint("a path is relative to the folder, such as images/cat.png")
	}
	if strings.ContainsRune(name, 0) {
		return "", refuse("it has a zero byte")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", refuse("it has ..")
		case len(part) > maxName:
			return "", refuse("a part of it has more than 255 bytes")
		}
	}
	clean := path.Clean("/" + name)[1:]
	switch {
	case len(clean) > maxPath:
		return "", refuse("it has more than 4095 bytes")
	case clean == "":
		return ".", nil
	}
	return clean, nil
}

// cleanFile is cleanPath for what cannot be the folder itself.
func cleanFile(name string) (string, error) {
	clean, err := cleanPath(name)
	if err == nil && clean == "." {
		err = backendai.Errorf(backendai.CodeInvalidParams, "%q is the folder itself", name).WithHint("name something that is in it")
	}
	return clean, err
}

// cleanName is a name without folders.
func cleanName(name string) (string, error) {
	clean, err := cleanFile(name)
	if err == nil && (clean != name || strings.Contains(name, "/")) {
		err = backendai.Errorf(backendai.CodeInvalidParams, "%q is no name of a file", shorten(name)).
			WithHint("a name has no slashes; 'backend.ai vfolder mv' moves a file to another directory")
	}
	return clean, err
}

// shorten keeps messages readable.
func shorten(name string) string {
	if len(name) > 100 {
		return name[:100] + "…"
	}
	return name
}

// escapes tells whether os.Root has refused a path that leaves the root, for
// which it has no value.
func escapes(err error) bool { return strings.Contains(err.Error(), "path escapes from parent") }

// errNotRegular is why something that is no file cannot be read as one.
var errNotRegular = errors.New("not a regular file")
