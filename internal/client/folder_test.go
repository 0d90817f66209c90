//go:build linux

package client_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"backendai"
	"backendai/internal/archive"
	"backendai/internal/client"
	"backendai/internal/testserver"
)

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

// folder makes a server, a client of a user of it, and a folder of that user.
func folder(t *testing.T) (*testserver.Server, *client.Client, testserver.Account) {
	t.Helper()
	s := testserver.Start(t, nil)
	alice := s.AddUser(t, "alice@example.org")
	c := s.Client(t, alice)
	if _, err := c.CreateFolder(t.Context(), client.FolderRequest{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	return s, c, alice
}

// upload writes a file here and puts it into the folder.
func upload(t *testing.T, c *client.Client, path string, content []byte, progress func(int64)) error {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return c.UploadFile(t.Context(), client.FileUpload{Folder: "data", Path: path, File: f, Progress: progress})
}

// download fetches a path of the folder into a new directory.
func download(t *testing.T, c *client.Client, path string, edit func(*client.FolderDownload)) (string, client.DownloadResult, error) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	down := client.FolderDownload{Folder: "data", Path: path, Root: root}
	if edit != nil {
		edit(&down)
	}
	result, err := c.DownloadAll(t.Context(), down)
	return dir, result, err
}

func same(t *testing.T, name string, content []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%s: %d bytes, want %d (equal: %t), %v", name, len(got), len(content), bytes.Equal(got, content), err)
	}
}

func TestFileThereAndBack(t *testing.T) {
	_, c, _ := folder(t)
	for _, size := range []int{0, 1, 1 << 20, 1<<20 + 1, 130 << 20} {
		content := noise(size)
		var seen atomic.Int64
		name := fmt.Sprintf("dir/%d bytes\n-ü", size)
		if err := upload(t, c, name, content, func(n int64) { seen.Add(n) }); err != nil {
			t.Fatal(err)
		}
		if seen.Load() != int64(size) {
			t.Errorf("of %d bytes %d were seen", size, seen.Load())
		}
		var total, come int64
		var mu sync.Mutex
		dir, result, err := download(t, c, name, func(d *client.FolderDownload) {
			d.Total = func(n int64) { total = n }
			d.Progress = func(_ string, n int64) { mu.Lock(); defer mu.Unlock(); come += n }
		})
		if err != nil || result.Files != 1 || total != int64(size) || come != total {
			t.Errorf("%d bytes: %+v, %d of %d bytes, %v", size, result, come, total, err)
		}
		same(t, filepath.Join(dir, name), content)
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

func TestTreeThereAndBack(t *testing.T) {
	s, c, _ := folder(t)
	from := t.TempDir()
	for i := range 3000 {
		name := filepath.Join(from, "many", fmt.Sprint(i%7), fmt.Sprint(i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o750), os.WriteFile(name, noise(i), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(from, "many/large"), noise(3<<20), 0o644), os.Symlink("0/0", filepath.Join(from, "many/link")), os.Mkdir(filepath.Join(from, "many/empty"), 0o755)); err != nil {
		t.Fatal(err)
	}
	sources, skipped, err := archive.Collect(filepath.Join(from, "many"), "many")
	if err != nil || len(skipped) > 0 {
		t.Fatal(skipped, err)
	}
	up := client.FolderUpload{Folder: "data", Dir: "in/to", Sources: sources}
	if r, err := c.UploadAll(t.Context(), up); err != nil || r.Files != 3002 || r.There != 0 {
		t.Fatalf("UploadAll = %+v, %v", r, err)
	}
	if r, err := c.UploadAll(t.Context(), up); err != nil || r.Files != 1 || r.There != 3001 { // the link is made again
		t.Errorf("UploadAll again = %+v, %v", r, err)
	}
	dir, result, err := download(t, c, "in", nil)
	if err != nil || result.Files != 3002 || len(result.Skipped) > 0 {
		t.Fatalf("DownloadAll = %+v, %v", result, err)
	}
	for i := range 3000 {
		same(t, filepath.Join(dir, "in/to/many", fmt.Sprint(i%7), fmt.Sprint(i)), noise(i))
	}
	if link, err := os.Readlink(filepath.Join(dir, "in/to/many/link")); link != "0/0" {
		t.Errorf("link to %q, %v", link, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	down := client.FolderDownload{Folder: "data", Path: "in", Root: root}
	if r, err := c.DownloadAll(t.Context(), down); err != nil || r.There != 3002 || r.Files != 0 {
		t.Errorf("DownloadAll again = %+v, %v", r, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "in/to/many/1/1"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DownloadAll(t.Context(), down); backendai.CodeOf(err) != backendai.CodeInvalidParams {
		t.Errorf("over another file: %v", err)
	}
	same(t, filepath.Join(dir, "in/to/many/1/1"), []byte("mine"))
	down.Overwrite = true
	if r, err := c.DownloadAll(t.Context(), down); err != nil || r.Files != 1 {
		t.Errorf("DownloadAll over another = %+v, %v", r, err)
	}
	same(t, filepath.Join(dir, "in/to/many/1/1"), noise(1))

	// The stranger gets at nothing of it.
	stranger := s.Client(t, s.AddUser(t, "stranger@example.org"))
	f, err := c.Folder(t.Context(), "data")
	if err != nil {
		t.Fatal(err)
	}
	up.Folder, down.Folder = f.ID, f.ID
	_, downErr := stranger.DownloadAll(t.Context(), down)
	_, upErr := stranger.UploadAll(t.Context(), up)
	_, lsErr := stranger.FolderFiles(t.Context(), f.ID, ".")
	for what, err := range map[string]error{"download": downErr, "upload": upErr, "list": lsErr, "remove": stranger.RemoveFolderFiles(t.Context(), f.ID, []string{"in"}, true)} {
		if backendai.CodeOf(err) != backendai.CodeNotFound {
			t.Errorf("stranger: %s: %v", what, err)
		}
	}
}

// cutter is a proxy that breaks connections off after some bytes each way, as
// long as it is told to.
type cutter struct {
	url  string
	left atomic.Int64 // bytes until the next cut; less than 0 for none
	cuts atomic.Int64
}

type cutConn struct {
	net.Conn

	c *cutter
}

func (c cutConn) use(n int) error {
	left := c.c.left.Load()
	if left < 0 {
		return nil
	}
	if c.c.left.Add(-int64(n)) < 0 {
		c.c.cuts.Add(1)
		c.c.left.Store(5_000_000)
		_ = c.Close()
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (c cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if cut := c.use(n); cut != nil {
		return 0, cut
	}
	return n, err
}

func (c cutConn) Write(p []byte) (int, error) {
	if cut := c.use(len(p)); cut != nil {
		return 0, cut
	}
	return c.Conn.Write(p)
}

type cutListener struct {
	net.Listener

	c *cutter
}

func (l cutListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return cutConn{conn, l.c}, nil
}

func newCutter(t *testing.T, endpoint string) *cutter {
	t.Helper()
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{url: "http://" + l.Addr().String()}
	c.left.Store(-1)
	proxy := &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}}
	done := make(chan error, 1)
	go func() { done <- proxy.Serve(cutListener{l, c}) }()
	t.Cleanup(func() {
		_ = proxy.Close()
		<-done
	})
	return c
}

// TestBrokenConnections: transfers go on over a connection that breaks all the
// time, and what arrives is what was sent.
func TestBrokenConnections(t *testing.T) {
	s, _, alice := folder(t)
	cut := newCutter(t, s.Endpoint)
	direct := *s
	direct.Endpoint = cut.url
	c := direct.Client(t, alice)
	content := noise(150 << 20)
	if _, err := c.Folder(t.Context(), "data"); err != nil { // versions are negotiated
		t.Fatal(err)
	}
	cut.left.Store(5_000_000)
	if err := upload(t, c, "large", content, nil); err != nil {
		t.Fatal(err)
	}
	dir, _, err := download(t, c, "large", nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, filepath.Join(dir, "large"), content)
	if n := cut.cuts.Load(); n < 20 {
		t.Errorf("the connection was cut only %d times", n)
	}
	from := t.TempDir()
	var sources []archive.Source
	for i := range 400 {
		name := filepath.Join(from, fmt.Sprint(i))
		if err := os.WriteFile(name, noise(50_000+i), 0o644); err != nil {
			t.Fatal(err)
		}
		one, _, err := archive.Collect(name, "tree/"+fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, one...)
	}
	if _, err := c.UploadAll(t.Context(), client.FolderUpload{Folder: "data", Dir: ".", Sources: sources}); err != nil {
		t.Fatal(err)
	}
	dir, _, err = download(t, c, "tree", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		same(t, filepath.Join(dir, "tree", fmt.Sprint(i)), noise(50_000+i))
	}
	left, err := filepath.Glob(filepath.Join(s.StateDir, "folders/*/*/upload/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".backend.ai") {
			t.Errorf("left over: %s", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestResume: an upload that is broken off and asked for again sends what is
// missing only, as long as the file is the same.
func TestResume(t *testing.T) {
	s, c, alice := folder(t)
	name := filepath.Join(t.TempDir(), "file")
	content := noise(100 << 20)
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var seen atomic.Int64
	ctx, stop := contextWithStop(t)
	err = c.UploadFile(ctx, client.FileUpload{Folder: "data", Path: "file", File: f, Progress: func(n int64) {
		if seen.Add(n) > 60<<20 {
			stop()
		}
	}})
	if err == nil {
		t.Fatal("the upload was not broken off")
	}
	if files, err := c.FolderFiles(t.Context(), "data", "."); err != nil || len(files) != 0 {
		t.Errorf("a file that is not whole shows: %v, %v", files, err)
	}
	records, err := filepath.Glob(filepath.Join(s.StateDir, "folders/*/*/upload/*/part.p*"))
	if err != nil || len(records) == 0 {
		t.Fatalf("nothing is kept of the upload: %v, %v", records, err)
	}
	var there int64
	for _, name := range records {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		there += int64(binary.BigEndian.Uint64(b[16:]))
	}
	if there < 30<<20 {
		t.Errorf("only %d bytes are kept", there)
	}
	counted := newCutter(t, s.Endpoint)
	counted.left.Store(1 << 40)
	direct := *s
	direct.Endpoint = counted.url
	if err := direct.Client(t, alice).UploadFile(t.Context(), client.FileUpload{Folder: "data", Path: "file", File: f}); err != nil {
		t.Fatal(err)
	}
	if sent := 1<<40 - counted.left.Load(); sent > int64(len(content))-there+int64(len(content))/100 {
		t.Errorf("%d bytes were sent although %d of %d were there", sent, there, len(content))
	}
	dir, _, err := download(t, c, "file", nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, filepath.Join(dir, "file"), content)
}

// TestDownloadResumes: what is here of a broken-off download is not fetched
// again, unless the file is another one now.
func TestDownloadResumes(t *testing.T) {
	s, c, alice := folder(t)
	content := noise(40 << 20)
	if err := upload(t, c, "file", content, nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fetch := func(c *client.Client, limit int64) (int64, error) {
		var seen atomic.Int64
		ctx, stop := contextWithStop(t)
		_, err := c.DownloadAll(ctx, client.FolderDownload{Folder: "data", Path: "file", Root: root, Progress: func(_ string, n int64) {
			if seen.Add(n) > limit {
				stop()
			}
		}})
		return seen.Load(), err
	}
	if _, err := fetch(c, 20<<20); err == nil {
		t.Fatal("the download was not broken off")
	}
	parts, err := filepath.Glob(filepath.Join(dir, ".backend.ai-*"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("aside: %v, %v", parts, err)
	}
	before, err := os.Stat(parts[0])
	if err != nil || before.Size() < 10<<20 {
		t.Fatalf("aside: %v, %v", before, err)
	}
	counted := newCutter(t, s.Endpoint)
	counted.left.Store(1 << 40)
	direct := *s
	direct.Endpoint = counted.url
	if _, err := fetch(direct.Client(t, alice), 1<<40); err != nil {
		t.Fatal(err)
	}
	if came := 1<<40 - counted.left.Load(); came > int64(len(content))-before.Size()+100_000 {
		t.Errorf("%d bytes came although %d of %d were here", came, before.Size(), len(content))
	}
	same(t, filepath.Join(dir, "file"), content)

	// Another state of the file: nothing of the old one is used.
	if err := os.Remove(filepath.Join(dir, "file")); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(c, 20<<20); err == nil {
		t.Fatal("the download was not broken off")
	}
	other := noise(41 << 20)
	if err := upload(t, c, "file", other, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(c, 1<<40); err != nil {
		t.Fatal(err)
	}
	same(t, filepath.Join(dir, "file"), other)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

func TestFolderCalls(t *testing.T) {
	s, c, _ := folder(t)
	ctx := t.Context()
	stranger := s.AddUser(t, "stranger@example.org")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	failed, err := c.MakeFolderDirs(ctx, "data", []string{"a/b", "../x"}, true, false)
	if err != nil || len(failed) != 1 || failed["../x"] == "" {
		t.Errorf("MakeFolderDirs = %v, %v", failed, err)
	}
	must(c.MoveFolderFile(ctx, "data", "a/b", "c"))
	must(c.RenameFolderFile(ctx, "data", "c", "d"))
	files, err := c.FolderFiles(ctx, "data", ".")
	if err != nil || len(files) != 2 || files[1].Name != "d" || files[1].Type != "DIRECTORY" || files[1].Mode != "755" {
		t.Errorf("FolderFiles = %+v, %v", files, err)
	}
	must(c.RemoveFolderFiles(ctx, "data", []string{"a", "d"}, true))
	permission, cloneable := "rw", true
	must(c.UpdateFolder(ctx, "data", &permission, &cloneable))
	copied, err := c.CloneFolder(ctx, "data", client.FolderRequest{Name: "copy"})
	must(err)
	end, err := c.FollowTask(ctx, copied.TaskID, func(client.TaskStep) {})
	if err != nil || !end.OK {
		t.Errorf("the copy ended with %+v, %v", end, err)
	}
	invited, err := c.InviteToFolder(ctx, "data", "ro", []string{stranger.Email})
	if err != nil || !slices.Equal(invited, []string{stranger.Email}) {
		t.Errorf("InviteToFolder = %v, %v", invited, err)
	}
	them := s.Client(t, stranger)
	list, err := them.Invitations(ctx, false)
	if err != nil || len(list) != 1 {
		t.Fatalf("Invitations = %v, %v", list, err)
	}
	must(them.AcceptInvitation(ctx, list[0].ID))
	must(them.LeaveFolder(ctx, "data", ""))
	must(c.RenameFolder(ctx, "data", "other"))
	must(c.DeleteFolder(ctx, "other"))
	trash, err := c.TrashedFolders(ctx)
	if err != nil || len(trash) != 1 || trash[0].Name != "other" {
		t.Errorf("TrashedFolders = %v, %v", trash, err)
	}
	must(c.RestoreFolder(ctx, "other"))
	must(c.DeleteFolder(ctx, "other"))
	must(c.EraseFolder(ctx, "other"))
	must(c.PurgeFolder(ctx, "other"))
	hosts, err := c.FolderHosts(ctx)
	if err != nil || hosts.Default != "local:default" {
		t.Errorf("FolderHosts = %v, %v", hosts, err)
	}
}
