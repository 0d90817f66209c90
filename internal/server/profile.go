package server

import (
	"errors"
	"io/fs"

	"backendai/internal/client"
)

// WriteProfile makes the client of the same user work with this server at once:
// it writes the administrator's client profile to path. A profile that leads
// elsewhere, or that was written for this server already, stays as it is; one
// with a key of an earlier life of this address is replaced on a first start.
// It tells whether path leads to this server now.
func (s *Server) WriteProfile(path string) (ours bool, err error) {
	old, err := client.ReadProfile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case old.Endpoint != s.Endpoint():
		return false, nil
	case !s.first:
		return true, nil
	}
	if s.admin.AccessKey == "" {
		return false, nil
	}
	return true, client.WriteProfile(path, client.Profile{Endpoint: s.Endpoint(), AccessKey: s.admin.AccessKey, SecretKey: s.admin.SecretKey})
}
