package api_test

import (
	"context"
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"backendai"
	"backendai/internal/account"
	"backendai/internal/api"
	"backendai/internal/auth"
	"backendai/internal/control"
	"backendai/internal/dotfile"
	"backendai/internal/session"
	"backendai/internal/vfolder"
)

// accounts is a scripted account.API: alice owns the session, the stranger nothing.
type accounts struct {
	account.API
	callers map[string]backendai.Caller // by access key
	added   backendai.User
	ssh     sshKeys

	mu    sync.Mutex
	holds map[string]context.CancelFunc // by access key
}

func newAccounts() *accounts {
	a := &accounts{callers: map[string]backendai.Caller{}, ssh: sshKeys{}, holds: map[string]context.CancelFunc{}}
	for name, role := range map[string]backendai.Role{"alice": backendai.RoleUser, "stranger": backendai.RoleUser, "admin": backendai.RoleSuperadmin} {
		a.callers["AKIA"+name] = backendai.Caller{
			User: backendai.User{ID: "id-" + name, Email: name + "@example.org", Username: name, FullName: "Full " + name, Role: role, Domain: "default", Group: "default", Active: true},
			Keypair: backendai.Keypair{
				AccessKey: "AKIA" + name, SecretKey: "secret-" + name, UserID: "id-" + name, Email: name + "@example.org", Active: true,
				Admin: role == backendai.RoleSuperadmin, ResourcePolicy: "default",
			},
		}
	}
	return a
}

func (a *accounts) Lookup(_ context.Context, key string) (backendai.Caller, error) {
	if c, ok := a.callers[key]; ok {
		return c, nil
	}
	return backendai.Caller{}, backendai.Errorf(backendai.CodeAuthFailed, "unknown access key")
}

func (a *accounts) Hold(_ context.Context, key string) (context.Context, func(), error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held, end := context.WithCancel(context.Background())
	a.holds[key] = end
	return held, end, nil
}

// revoke ends what goes on by the latest request of a keypair.
func (a *accounts) revoke(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds[key]()
}

func (a *accounts) Act(_ context.Context, caller backendai.Caller, owner string) (backendai.Caller, error) {
	if owner == "" || owner == caller.Keypair.AccessKey {
		return caller, nil
	}
	if !caller.Superadmin() {
		return backendai.Caller{}, backendai.Errorf(backendai.CodeForbidden, "not yours")
	}
	return a.callers[owner], nil
}

func (a *accounts) Users(_ context.Context, caller backendai.Caller) ([]*backendai.User, error) {
	var all []*backendai.User
	for _, name := range []string{"admin", "alice", "stranger"} {
		c := a.callers["AKIA"+name]
		if caller.Superadmin() || c.User.ID == caller.User.ID {
			all = append(all, &c.User)
		}
	}
	return all, nil
}

func (a *accounts) User(ctx context.Context, caller backendai.Caller, email string) (*backendai.User, error) {
	all, _ := a.Users(ctx, caller)
	for _, u := range all {
		if u.Email == email {
			return u, nil
		}
	}
	return nil, backendai.NotFound("user", email)
}

func (a *accounts) Keypairs(_ context.Context, caller backendai.Caller) ([]*backendai.Keypair, error) {
	var all []*backendai.Keypair
	for _, name := range []string{"admin", "alice", "stranger"} {
		c := a.callers["AKIA"+name]
		if caller.Superadmin() || c.User.ID == caller.User.ID {
			all = append(all, &c.Keypair)
		}
	}
	return all, nil
}

func (a *accounts) AddUser(_ context.Context, caller backendai.Caller, u backendai.User, _ string) (*backendai.User, *backendai.Keypair, error) {
	if !caller.Superadmin() {
		return nil, nil, backendai.Errorf(backendai.CodeForbidden, "only a superadmin may do this")
	}
	if u.Email == "taken@example.org" {
		return nil, nil, backendai.Errorf(backendai.CodeInvalidParams, "the user exists already")
	}
	a.added = u
	u.ID = "id-new"
	return &u, &backendai.Keypair{AccessKey: "AKIANEW", SecretKey: "new secret", UserID: u.ID, Email: u.Email, Active: u.Active}, nil
}

// sessions is a scripted session.API with one session, which belongs to alice.
type sessions struct {
	session.API
	app string // address of the app behind every Connect

	mu      sync.Mutex
	created session.CreateRequest
	create  func(context.Context, session.CreateRequest) (session.CreateResult, error)
	connect session.ConnectRequest
	events  chan backendai.Event
	renamed string

	uploaded, folder, hostile string
	skipped                   []control.Skipped
}

var started = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func theSession() *backendai.Session {
	return &backendai.Session{
		ID: "11111111-2222-4333-8444-555555555555", Name: "mysession", AccessKey: "AKIAalice", UserID: "id-alice", Domain: "default", Group: "default",
		Type: backendai.Interactive, Image: "localhost/python:3.11", Architecture: "x86_64",
		Requested: backendai.Slots{"cpu": 1000, "mem": 1 << 30}, Status: backendai.StatusRunning, CreatedAt: started,
		History: []backendai.StatusChange{{Status: backendai.StatusPending, At: started}, {Status: backendai.StatusRunning, At: started.Add(time.Second)}},
		Apps:    []backendai.App{{Name: "sshd", Protocol: backendai.ProtocolTCP, Ports: []int{2200}}},
	}
}

func (s *sessions) Find(_ context.Context, caller backendai.Caller, ref string, _ bool) (*backendai.Session, error) {
	one := theSession()
	if caller.User.ID != one.UserID && !caller.Superadmin() || ref != one.Name && ref != one.ID {
		return nil, backendai.NotFound("session", ref)
	}
	return one, nil
}

func (s *sessions) Create(ctx context.Context, _ backendai.Caller, req session.CreateRequest) (session.CreateResult, error) {
	s.mu.Lock()
	s.created = req
	create := s.create
	s.mu.Unlock()
	if create != nil {
		return create(ctx, req)
	}
	return session.CreateResult{Session: theSession(), Created: true}, nil
}

func (s *sessions) Match(ctx context.Context, caller backendai.Caller, prefix string) ([]*backendai.Session, error) {
	if one, err := s.Find(ctx, caller, "mysession", false); err == nil && strings.HasPrefix(one.Name, prefix) {
		return []*backendai.Session{one}, nil
	}
	return nil, nil
}

func (s *sessions) List(ctx context.Context, caller backendai.Caller, _ session.Query) ([]*backendai.Session, int, error) {
	one, err := s.Find(ctx, caller, "mysession", false)
	if err != nil {
		return nil, 0, nil
	}
	return []*backendai.Session{one}, 1, nil
}

func (s *sessions) Destroy(ctx context.Context, caller backendai.Caller, ref string, _ bool) (*backendai.Session, error) {
	one, err := s.Find(ctx, caller, ref, false)
	if err == nil {
		one.Status = backendai.StatusTerminated
	}
	return one, err
}

func (s *sessions) only(ctx context.Context, caller backendai.Caller, ref string) error {
	_, err := s.Find(ctx, caller, ref, false)
	return err
}

func (s *sessions) Restart(ctx context.Context, caller backendai.Caller, ref string) error {
	return s.only(ctx, caller, ref)
}

func (s *sessions) Rename(ctx context.Context, caller backendai.Caller, ref, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renamed = name
	return s.only(ctx, caller, ref)
}

func (s *sessions) Interrupt(ctx context.Context, caller backendai.Caller, ref string) error {
	return s.only(ctx, caller, ref)
}

func (s *sessions) ShutdownApp(ctx context.Context, caller backendai.Caller, ref, _ string) error {
	return s.only(ctx, caller, ref)
}

func (s *sessions) Logs(ctx context.Context, caller backendai.Caller, ref string, _ bool) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("hello\xff\n")), s.only(ctx, caller, ref)
}

func (s *sessions) Apps(ctx context.Context, caller backendai.Caller, ref string) ([]backendai.App, error) {
	one, err := s.Find(ctx, caller, ref, false)
	if err != nil {
		return nil, err
	}
	return one.Apps, nil
}

func (s *sessions) Connect(ctx context.Context, caller backendai.Caller, ref string, req session.ConnectRequest) (net.Conn, error) {
	if err := s.only(ctx, caller, ref); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.connect = req
	s.mu.Unlock()
	switch req.App {
	case "sshd":
		return new(net.Dialer).DialContext(ctx, "tcp", s.app)
	case "dead":
		return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:1") // nobody listens on tcpmux
	default:
		return nil, backendai.Errorf(backendai.CodeNotFound, "no such app service: %q", req.App)
	}
}

func (s *sessions) Upload(ctx context.Context, caller backendai.Caller, ref, folder string, archive io.Reader) (session.Unpacked, error) {
	if err := s.only(ctx, caller, ref); err != nil {
		return session.Unpacked{}, err
	}
	sum := sha256.New()
	text, err := io.ReadAll(io.TeeReader(archive, sum))
	if err != nil {
		return session.Unpacked{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uploaded, s.folder = string(text), folder
	return session.Unpacked{Files: 1, SHA256: sum.Sum(nil), Skipped: s.skipped}, nil
}

func (s *sessions) ListFiles(ctx context.Context, caller backendai.Caller, ref, path string) (session.Listing, error) {
	if err := s.only(ctx, caller, ref); err != nil {
		return session.Listing{}, err
	}
	if path != "." {
		return session.Listing{}, backendai.Errorf(backendai.CodeInvalidParams, "no such file: %q", path)
	}
	return session.Listing{Path: "/home/work", Self: session.FileEntry{Type: "directory"}, Entries: []session.FileEntry{{Name: "a\n", Type: "file", Size: 5, Mode: 0o640, Modified: started}}}, nil
}

func (s *sessions) OpenFile(ctx context.Context, caller backendai.Caller, ref, path string) (*session.OpenFile, error) {
	if err := s.only(ctx, caller, ref); err != nil {
		return nil, err
	}
	if path != "id_container" {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "The file is not found.")
	}
	return &session.OpenFile{Entry: session.FileEntry{Size: 11}, ReadCloser: io.NopCloser(strings.NewReader("PRIVATE KEY"))}, nil
}

func (s *sessions) Download(ctx context.Context, caller backendai.Caller, ref string, paths ...string) (io.ReadCloser, error) {
	if err := s.only(ctx, caller, ref); err != nil {
		return nil, err
	}
	if paths[0] == "hostile" {
		return io.NopCloser(strings.NewReader(s.hostile)), nil
	}
	if paths[0] != "id_container" {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "The file is not found.")
	}
	return io.NopCloser(strings.NewReader(tarOf("id_container", "PRIVATE KEY"))), nil
}

func (s *sessions) HostKeys(ctx context.Context, caller backendai.Caller, ref string) ([]string, error) {
	return []string{"ssh-ed25519 AAAA"}, s.only(ctx, caller, ref)
}

func (s *sessions) Terminals(ctx context.Context, caller backendai.Caller, ref string) ([]session.Terminal, error) {
	return []session.Terminal{{Name: "main", Command: "bash", PID: 7, Viewers: 1, Rows: 24, Cols: 80, Started: started}}, s.only(ctx, caller, ref)
}

func (s *sessions) EndTerminal(ctx context.Context, caller backendai.Caller, ref, name string) error {
	if err := s.only(ctx, caller, ref); err != nil || name == "main" {
		return err
	}
	return backendai.NotFound("terminal", name)
}

func (s *sessions) Events(ctx context.Context, _ backendai.Caller, _ session.EventFilter) (<-chan backendai.Event, error) {
	out := make(chan backendai.Event)
	go func() {
		defer close(out)
		for {
			select {
			case e, ok := <-s.events:
				if !ok {
					return
				}
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// images is a scripted image store.
type images struct {
	api.Images
	fail error
}

func (i *images) Resolve(_ context.Context, name, _ string) (backendai.Image, error) {
	if name == "nothing" {
		return backendai.Image{}, backendai.NotFound("image", name)
	}
	return backendai.Image{Ref: "localhost/" + name}, nil
}

func (i *images) List(context.Context) ([]backendai.Image, error) {
	return []backendai.Image{{Ref: "localhost/python:3.11-debian12", Digest: "sha256:1", Architecture: "x86_64", Size: 1 << 33, Aliases: []string{"python"}}}, nil
}

func (i *images) Pull(_ context.Context, ref string, progress func(backendai.PullProgress)) (backendai.Image, error) {
	progress(backendai.PullProgress{Ref: ref, Stage: "downloading", Done: 1, Total: 2})
	return backendai.Image{Ref: ref, Digest: "sha256:2"}, i.fail
}

func (i *images) Build(_ context.Context, recipe string, line func(string)) (backendai.Image, error) {
	line("a <line>")
	return backendai.Image{Ref: "localhost/" + recipe, Digest: "sha256:3"}, i.fail
}

func (i *images) Import(_ context.Context, r io.Reader, name string, progress func(backendai.PullProgress)) ([]backendai.Image, error) {
	n, err := io.Copy(io.Discard, r)
	progress(backendai.PullProgress{Ref: name, Stage: "unpacking", Done: n})
	return []backendai.Image{{Ref: name, Digest: "sha256:4", Size: n}}, err
}

func (i *images) Remove(_ context.Context, name string) error {
	if name != "python" {
		return backendai.NotFound("image", name)
	}
	return nil
}

func (i *images) Alias(context.Context, string, string) error { return nil }
func (i *images) Dealias(_ context.Context, alias string) error {
	return backendai.NotFound("alias", alias)
}

// world is an API over the fakes, served on a port of its own.
type world struct {
	t        *testing.T
	accounts *accounts
	sessions *sessions
	images   *images
	folders  *vfolder.Service
	dotfiles *dotfile.Service
	handler  *api.Handler
	server   *httptest.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, accounts: newAccounts(), sessions: &sessions{events: make(chan backendai.Event)}, images: &images{}}
	w.folders, w.dotfiles = newFolders(t, w.accounts)
	var err error
	w.handler, err = api.New(api.Options{
		Sessions: w.sessions, Accounts: w.accounts, Images: w.images, Folders: w.folders, Dotfiles: w.dotfiles, Version: "1.2.3",
		Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Capacity: func(context.Context) (backendai.Slots, error) {
			return backendai.Slots{"cpu": 2000, "mem": 4 << 30}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewServer(w.handler)
	t.Cleanup(func() {
		w.server.Close()
		w.handler.End(nil)
	})
	return w
}

// request makes a request signed by the user; an empty user is nobody.
func (w *world) request(user, method, target, body string) *http.Request {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+target, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	contentType := "application/json"
	if body == "" {
		contentType = "text/plain"
	}
	key, secret := "", ""
	if user != "" {
		key, secret = "AKIA"+user, "secret-"+user
	}
	auth.Sign(req, key, secret, "v6.20220315", contentType, time.Now())
	return req
}

// call does a request and reads the whole answer.
func (w *world) call(user, method, target, body string) (*http.Response, string) {
	w.t.Helper()
	return w.do(w.request(user, method, target, body))
}

func (w *world) do(req *http.Request) (*http.Response, string) {
	w.t.Helper()
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(text)
}
