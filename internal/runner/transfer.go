package runner

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"backendai"
	"backendai/internal/control"
	"backendai/internal/runner/files"
	"backendai/internal/runner/sshd"
)

// refusalTime is how long the rest of an archive is taken, and thrown away,
// after its sender was told that it is refused.
const refusalTime = 10 * time.Second

// unbounded tells whether the body of a request may be of any length.
func unbounded(req *http.Request) bool {
	return req.Method == http.MethodPost && req.URL.Path == "/v1/files"
}

// packFiles answers with a tar of one or more paths.
func (r *Runner) packFiles(w http.ResponseWriter, req *http.Request) error {
	if err := req.ParseForm(); err != nil {
		return backendai.Errorf(backendai.CodeInvalidParams, "the paths are no form: %w", err)
	}
	names := req.Form["path"]
	if len(names) == 0 {
		return noPath()
	}
	archive, err := files.Open(r.Config.Home, names...)
	if err != nil {
		return r.explainKey(names, err)
	}
	defer archive.Close()
	w.Header().Set("Content-Type", "application/x-tar")
	return archive.Write(req.Context(), w)
}

// explainKey tells why there is no private key to fetch in a session that its
// user's own keys open.
func (r *Runner) explainKey(names []string, err error) error {
	r.mu.Lock()
	keys := r.keys
	r.mu.Unlock()
	if keys == nil || keys.Own || !slices.Contains(names, sshd.IdentityName) {
		return err
	}
	if _, statErr := os.Lstat(filepath.Join(r.Config.Home, sshd.IdentityName)); statErr == nil {
		return err
	}
	return backendai.Errorf(backendai.CodeInvalidParams, "this session has no %s: your own keys open it, those of ~/.ssh/authorized_keys", sshd.IdentityName).
		WithHint("log in as work with the private key of one of them; a session without a .ssh folder makes a key of its own")
}

func noPath() error { return backendai.Errorf(backendai.CodeInvalidParams, "there is no path") }

// unpackFiles unpacks the body below a folder.
func (r *Runner) unpackFiles(w http.ResponseWriter, req *http.Request) error {
	name := req.URL.Query().Get("path")
	if name == "" {
		return noPath()
	}
	target, err := files.OpenTarget(r.Config.Home, name)
	if err != nil {
		return err
	}
	defer target.Close()
	c := w.(*writer).control
	if err := c.EnableFullDuplex(); err != nil {
		return err
	}
	report, err := target.Unpack(req.Context(), req.Body)
	if err == nil {
		return reply(w, report)
	}
	// The sender is in the middle of its archive: it must be able to read why
	// before the connection breaks.
	control.WriteError(w, err)
	if err := w.(*writer).FlushError(); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(refusalTime)); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, req.Body) // it ends when the sender has read the answer
	return nil
}

// listFiles tells of a path and of what is in it.
func (r *Runner) listFiles(w http.ResponseWriter, req *http.Request) error {
	name := req.URL.Query().Get("path")
	if name == "" {
		return noPath()
	}
	w.Header().Set("Content-Type", "application/jsonl")
	lines := json.NewEncoder(w)
	more, err := files.List(r.Config.Home, name, func(e control.Entry) error {
		if err := req.Context().Err(); err != nil {
			return err
		}
		return lines.Encode(e)
	})
	if err != nil {
		return err
	}
	return lines.Encode(control.ListEnd{End: true, More: more})
}

// readFile answers with a file from an offset on.
func (r *Runner) readFile(w http.ResponseWriter, req *http.Request) error {
	query := req.URL.Query()
	offset, err := number(query.Get("offset"), 0)
	if err != nil {
		return err
	}
	f, entry, err := files.Read(r.Config.Home, query.Get("path"), offset)
	if err != nil {
		return err
	}
	defer f.Close()
	about, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	length := max(0, entry.Size-offset)
	w.Header().Set(control.EntryHeader, string(about))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	w.WriteHeader(http.StatusOK)
	_, err = io.CopyN(w, f, length)
	return err
}

// sumFile answers with the sum of a file's first bytes.
func (r *Runner) sumFile(w http.ResponseWriter, req *http.Request) error {
	query := req.URL.Query()
	length, err := number(query.Get("length"), -1)
	if err != nil {
		return err
	}
	sum, size, err := files.Sum(req.Context(), r.Config.Home, query.Get("path"), length)
	if err != nil {
		return err
	}
	return reply(w, control.Sum{SHA256: sum, Size: size})
}

// number reads a number of bytes; what is not given is otherwise.
func number(text string, otherwise int64) (int64, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < min(0, otherwise) {
		return 0, backendai.Errorf(backendai.CodeInvalidParams, "%q is not a number of bytes", text)
	}
	return n, nil
}
