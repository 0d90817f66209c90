package process

import (
	"errors"
	"os"
)

// ErrNoShell says that the image has no shell at all.
var ErrNoShell = errors.New("this image has no shell: none of /bin/bash, /bin/ash and /bin/sh exists")

// Shell is the interactive shell of the session: the user's choice in SHELL
// if it can be run, else bash, else ash (Alpine's), else sh.
func Shell(env map[string]string) (string, error) {
	for _, path := range []string{env["SHELL"], "/bin/bash", "/bin/ash", "/bin/sh"} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", ErrNoShell
}
