package session

import (
	"context"
	"io"
	"path"
	"strings"

	"backendai"
)

// inHome makes a path relative to the home, which absolute ones must be below.
func inHome(field, name string) (string, error) {
	if path.IsAbs(name) {
		below, ok := strings.CutPrefix(path.Clean(name)+"/", home+"/")
		if !ok {
			return "", badParam(field, "%q is not below %s", name, home)
		}
		if name = strings.TrimSuffix(below, "/"); name == "" {
			name = "."
		}
	}
	if name == "" || strings.ContainsRune(name, 0) {
		return "", badParam(field, "%q is not a path", name)
	}
	return name, nil
}

// Download implements API.
func (s *Service) Download(ctx context.Context, caller backendai.Caller, ref string, paths ...string) (io.ReadCloser, error) {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return nil, err
	}
	below := make([]string, len(paths))
	for i, name := range paths {
		if below[i], err = inHome("files", name); err != nil {
			return nil, err
		}
	}
	return l.control.Files(ctx, below...)
}

// Upload implements API.
func (s *Service) Upload(ctx context.Context, caller backendai.Caller, ref, folder string, archive io.Reader) (Unpacked, error) {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return Unpacked{}, err
	}
	if folder, err = inHome("path", folder); err != nil {
		return Unpacked{}, err
	}
	return l.control.Unpack(ctx, folder, archive)
}

// ListFiles implements API.
func (s *Service) ListFiles(ctx context.Context, caller backendai.Caller, ref, name string) (Listing, error) {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return Listing{}, err
	}
	if name, err = inHome("path", name); err != nil {
		return Listing{}, err
	}
	return l.control.List(ctx, name)
}

// OpenFile implements API.
func (s *Service) OpenFile(ctx context.Context, caller backendai.Caller, ref, name string) (*OpenFile, error) {
	l, err := s.way(ctx, caller, ref)
	if err != nil {
		return nil, err
	}
	if name, err = inHome("file", name); err != nil {
		return nil, err
	}
	return l.control.Read(ctx, name, 0)
}
