package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"backendai"
)

// What a session may say of its files at most.
const (
	maxLine     = 32 << 10 // bytes of one entry
	maxFileName = 4 << 10  // bytes of a name or of a link's target

	transferBuffer = 64 << 10 // bytes that are moved at a time
)

// Listing is a folder and what is in it, in order of name, or one file.
type Listing struct {
	Path    string // absolute, in the session
	Self    Entry  // its name is the path's last part
	Entries []Entry
	More    bool // there are more than MaxEntries
}

// OpenFile is an open file of the session. Its caller closes it.
type OpenFile struct {
	Entry
	io.ReadCloser
}

// Files gives an uncompressed tar of paths, which are relative to the home; the
// names of its entries begin with the last part of their path. What was left
// out is told inside by PAXSkipped. The tar is the session's word: whoever
// unpacks it checks names and bounds size. A stream that breaks off ends in
// io.ErrUnexpectedEOF. The caller closes it.
func (c *Client) Files(ctx context.Context, paths ...string) (io.ReadCloser, error) {
	resp, err := c.open(ctx, http.MethodPost, "/v1/files/pack", url.Values{"path": paths})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Unpack unpacks an uncompressed tar, which it reads to its end, below a folder
// that is relative to the home and made where there is none. Only ctx and the
// archive's end bound how long it takes. An archive that cannot be read to its
// end is the error that reading it gave. After an error a read that is under
// way may go on: the caller ends the archive.
func (c *Client) Unpack(ctx context.Context, folder string, archive io.Reader) (Unpacked, error) {
	source := &sourceReader{from: archive}
	// The transport waits for its reads; only a pipe's can be ended.
	body, feed := io.Pipe()
	defer body.Close()
	defer context.AfterFunc(ctx, func() { _ = body.CloseWithError(ctx.Err()) })()
	go func() {
		_, err := io.CopyBuffer(feed, struct{ io.Reader }{source}, make([]byte, transferBuffer))
		feed.CloseWithError(err)
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runner/v1/files?"+url.Values{"path": {folder}}.Encode(), body)
	if err != nil {
		return Unpacked{}, fmt.Errorf("make request to the runner: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-tar")
	req.Header.Set("Expect", "100-continue") // a folder that is refused costs no byte of the archive
	resp, err := c.do(req)
	if err == nil {
		defer resp.Body.Close()
		var u Unpacked
		if err = readReply(resp.Body, &u); err == nil {
			return u, checkUnpacked(&u)
		}
	}
	if broke := source.err.Load(); broke != nil {
		return Unpacked{}, *broke
	}
	return Unpacked{}, err
}

// List lists a folder, or tells of a single file.
func (c *Client) List(ctx context.Context, path string) (Listing, error) {
	resp, err := c.open(ctx, http.MethodGet, "/v1/files/list?"+url.Values{"path": {path}}.Encode(), nil)
	if err != nil {
		return Listing{}, err
	}
	defer resp.Body.Close()
	expire := time.AfterFunc(startTimeout, func() { _ = resp.Body.Close() })
	defer expire.Stop()
	l, err := readListing(resp.Body)
	if e, ok := errors.AsType[*backendai.Error](err); ok {
		return Listing{}, e
	}
	if err != nil {
		return Listing{}, unreachable(err)
	}
	return l, nil
}

func readListing(body io.Reader) (Listing, error) {
	var l Listing
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	for count := 0; lines.Scan(); count++ {
		var line struct {
			Entry
			ListEnd
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			return Listing{}, disbelieve(errors.New("a line of a list is not JSON"))
		}
		if line.End && count > 0 {
			l.More = line.More
			slices.SortFunc(l.Entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
			return l, nil
		}
		e := line.Entry
		if count == 0 {
			l.Path = restore(e)
			e.Name, e.Raw = l.Path[strings.LastIndexByte(l.Path, '/')+1:], nil
			if e.Name == "" {
				e.Name = "/"
			}
		}
		if err := checkEntry(&e, count == 0); err != nil {
			return Listing{}, disbelieve(err)
		}
		switch {
		case count == 0:
			l.Self = e
		case count > MaxEntries:
			return Listing{}, disbelieve(fmt.Errorf("a list is longer than %d entries", MaxEntries))
		default:
			l.Entries = append(l.Entries, e)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return Listing{}, disbelieve(fmt.Errorf("a line of a list is longer than %d bytes", maxLine))
	}
	return Listing{}, errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}

// Read opens a regular file, following links within the home, at an offset,
// which may lie beyond its end. The stream ends in io.ErrUnexpectedEOF when the
// file becomes shorter meanwhile; it has Size-offset bytes.
func (c *Client) Read(ctx context.Context, path string, offset int64) (*OpenFile, error) {
	query := url.Values{"path": {path}, "offset": {strconv.FormatInt(offset, 10)}}
	resp, err := c.open(ctx, http.MethodGet, "/v1/files/raw?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	f := &OpenFile{ReadCloser: resp.Body}
	err = json.Unmarshal([]byte(resp.Header.Get(EntryHeader)), &f.Entry)
	if err == nil {
		err = checkEntry(&f.Entry, false)
	}
	if err == nil && (f.Type != TypeFile || resp.ContentLength != max(0, f.Size-offset)) {
		err = errors.New("the file and what is told of it do not fit")
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, disbelieve(err)
	}
	return f, nil
}

// Sum gives the SHA-256 of a file's first length bytes, all of it when length
// is negative. Only ctx bounds how long it takes.
func (c *Client) Sum(ctx context.Context, path string, length int64) (Sum, error) {
	query := url.Values{"path": {path}, "length": {strconv.FormatInt(length, 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://runner/v1/files/sum?"+query.Encode(), nil)
	if err != nil {
		return Sum{}, fmt.Errorf("make request to the runner: %w", err)
	}
	resp, err := c.do(req)
	if err != nil {
		return Sum{}, err
	}
	defer resp.Body.Close()
	var s Sum
	if err := readReply(resp.Body, &s); err != nil {
		return Sum{}, err
	}
	if len(s.SHA256) != 32 || s.Size < 0 {
		return Sum{}, disbelieve(errors.New("a sum is none"))
	}
	return s, nil
}

// sourceReader remembers why the archive that is sent could not be read.
type sourceReader struct {
	from io.Reader
	err  atomic.Pointer[error]
}

func (r *sourceReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err.Store(&err)
	}
	return n, err
}

// checkEntry makes an entry whole, or refuses it. Only the path that was asked
// for may be a root.
func checkEntry(e *Entry, self bool) error {
	e.Name, e.Raw = restore(*e), nil
	switch {
	case e.Name == "" || e.Name == "." || e.Name == ".." || len(e.Name) > maxFileName,
		strings.ContainsAny(e.Name, "/\x00") && (!self || e.Name != "/"):
		return fmt.Errorf("the name of a file is %q", cut(e.Name, maxTitle))
	case !slices.Contains([]string{TypeFile, TypeFolder, TypeLink, TypeOther}, e.Type):
		return fmt.Errorf("the type of a file is %q", cut(e.Type, maxTitle))
	case e.Size < 0 || e.Mode > 0o7777 || len(e.Target) > maxFileName:
		return fmt.Errorf("what is told of file %q cannot be", cut(e.Name, maxTitle))
	}
	return nil
}

// restore is the exact name of an entry on the wire.
func restore(e Entry) string {
	if len(e.Raw) > 0 {
		return string(e.Raw)
	}
	return e.Name
}

// checkUnpacked makes a report fit to be told to people, or refuses it.
func checkUnpacked(u *Unpacked) error {
	if u.Files < 0 || u.Folders < 0 || u.Links < 0 || u.Bytes < 0 || u.More < 0 ||
		len(u.Skipped) > MaxSkipped || len(u.SHA256) != 32 {
		return disbelieve(errors.New("the report of an upload cannot be"))
	}
	for i, s := range u.Skipped {
		u.Skipped[i] = Skipped{Name: line(s.Name, maxTitle), Reason: line(s.Reason, maxTitle)}
	}
	return nil
}
