package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/api"
	"backendai/internal/archive"
	"backendai/internal/dotfile"
	"backendai/internal/store"
	"backendai/internal/vfolder"
)

// folderStore is a database whose users are the scripted ones.
type folderStore struct {
	*store.Store

	accounts *accounts
}

func (s folderStore) User(_ context.Context, id string) (*backendai.User, error) {
	for _, c := range s.accounts.callers {
		if c.User.ID == id {
			return &c.User, nil
		}
	}
	return nil, backendai.NotFound("user", id)
}

func (s folderStore) UserByEmail(_ context.Context, email string) (*backendai.User, error) {
	for _, c := range s.accounts.callers {
		if c.User.Email == email {
			return &c.User, nil
		}
	}
	return nil, backendai.NotFound("user", email)
}

func newFolders(t *testing.T, a *accounts) (*vfolder.Service, *dotfile.Service) {
	t.Helper()
	db, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range a.callers {
		if err := db.InsertUser(t.Context(), &c.User, "", &c.Keypair); err != nil {
			t.Fatal(err)
		}
	}
	s, err := vfolder.New(vfolder.Options{
		Store: folderStore{db, a}, Hosts: map[string]string{"local:default": filepath.Join(t.TempDir(), "folders")}, DefaultHost: "local:default", Key: []byte("key"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, dotfile.New(db, s.Hidden)
}

// ok does a call that must succeed with the status and reads its JSON.
func (w *world) ok(user, method, target, body string, status int) map[string]any {
	w.t.Helper()
	resp, text := w.call(user, method, target, body)
	if resp.StatusCode != status {
		w.t.Fatalf("%s %s: %d %s, want %d", method, target, resp.StatusCode, text, status)
	}
	var v map[string]any
	if strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			w.t.Fatalf("%s %s: %v", method, target, err)
		}
	}
	return v
}

// keys gives some of an answer as text.
func keys(v map[string]any, names ...string) string {
	some := make([]any, len(names))
	for i, name := range names {
		some[i] = v[name]
	}
	text, _ := json.Marshal(some)
	return string(text)
}

func TestFolderLife(t *testing.T) {
	w := newWorld(t)
	made := w.ok("alice", "POST", "/folders", `{"name":".ssh","host":null,"unmanaged_path":null,"group":null,"usage_mode":"general","permission":"rw","cloneable":false,"quota":"0"}`, 201)
	if got := keys(made, "name", "host", "usage_mode", "permission", "creator", "ownership_type", "user", "group", "cloneable", "status", "max_size"); got !=
		`[".ssh","local:default","general","wd","alice@example.org","user","id-alice",null,false,"ready",0]` {
		t.Errorf("created %s", got)
	}
	id, _ := made["id"].(string)
	dashed := id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
	for _, ref := range []string{".ssh", id, dashed, strings.ToUpper(id)} {
		info := w.ok("alice", "GET", "/folders/"+ref, "", 200)
		if got := keys(info, "name", "numFiles", "num_files", "status", "is_owner", "cur_size", "group"); got != `[".ssh",0,0,"ready",true,0,null]` {
			t.Errorf("%s: %s", ref, got)
		}
	}
	if got := keys(w.ok("alice", "GET", "/folders/_/id", `{"name":".ssh"}`, 200), "id", "name"); got != `["`+id+`",".ssh"]` {
		t.Errorf("id: %s", got)
	}
	if _, text := w.call("alice", "GET", "/folders", `{"all":false}`); !strings.HasPrefix(text, `[{`) || !strings.Contains(text, `"type":"user"`) {
		t.Errorf("list: %s", text)
	}
	if resp, text := w.call("stranger", "GET", "/folders?all=true", ""); text != "[]" {
		t.Errorf("the stranger's list: %d %s", resp.StatusCode, text)
	}
	hosts := w.ok("alice", "GET", "/folders/_/hosts", "", 200)
	if got := keys(hosts, "default", "allowed"); got != `["local:default",["local:default"]]` {
		t.Errorf("hosts: %s", got)
	}
	w.problem("alice", "POST", "/folders", `{"name":".ssh"}`, 400, "vfolder-already-exists")
	for _, body := range []string{`{}`, `{"name":"a/b"}`, `{"name":"x","permission":"all"}`, `{"name":"x","usage_mode":"fun"}`, `{"name":"x","quota":"much"}`, `{"name":"x","unmanaged_path":"/etc"}`, `{"name":"x","host":"nas"}`} {
		w.problem("alice", "POST", "/folders", body, 400, "invalid-api-params")
	}
	w.ok("alice", "POST", "/folders/.ssh/rename", `{"new_name":"keys"}`, 201)
	w.ok("alice", "POST", "/folders/keys/update-options", `{"cloneable":true,"permission":"ro"}`, 201)
	if got := keys(w.ok("alice", "GET", "/folders/keys", "", 200), "cloneable", "permission"); got != `[true,"ro"]` {
		t.Errorf("options: %s", got)
	}
	w.ok("alice", "DELETE", "/folders/keys", "", 204)
	w.problem("alice", "DELETE", "/folders/keys", "", 404, "object-not-found")
	w.ok("alice", "POST", "/folders/restore-from-trash-bin", `{"id":"`+id+`"}`, 204)
	w.ok("alice", "DELETE", "/folders", `{"id":"`+id+`"}`, 204)
	w.ok("alice", "POST", "/folders/delete-from-trash-bin", `{"id":"`+id+`"}`, 204)
	w.ok("alice", "POST", "/folders/purge", `{"id":"`+id+`"}`, 204)
	w.problem("alice", "GET", "/folders/"+id, "", 404, "object-not-found")
	w.ok("alice", "POST", "/folders", `{"name":"again"}`, 201)
	w.ok("alice", "DELETE", "/folders/again/force", "", 204)
	w.problem("alice", "GET", "/folders/again", "", 404, "object-not-found")
}

func TestFolderFiles(t *testing.T) {
	w := newWorld(t)
	w.ok("alice", "POST", "/folders", `{"name":"data"}`, 201)
	made := w.ok("alice", "POST", "/folders/data/mkdir", `{"path":["a","a/b","../x"]}`, 207)
	if got := keys(made, "results"); !strings.Contains(got, `"success":[{"item":"a","msg":"created"},{"item":"a/b"`) || !strings.Contains(got, `"failed":[{"item":"../x"`) {
		t.Errorf("mkdir: %s", got)
	}
	w.ok("alice", "POST", "/folders/data/mkdir", `{"path":"x, y/z","parents":true,"exist_ok":true}`, 201)
	w.problem("alice", "POST", "/folders/data/mkdir", `{"path":"a"}`, 400, "vfolder-operation-failed")
	w.ok("alice", "POST", "/folders/data/move-file", `{"src":"a/b","dst":"moved"}`, 200)
	w.ok("alice", "POST", "/folders/data/rename_file", `{"target_path":"moved","new_name":"renamed"}`, 200)
	list := w.ok("alice", "GET", "/folders/data/files", `{"path":"."}`, 200)
	items, _ := json.Marshal(list["items"])
	if !strings.Contains(string(items), `"mode":"755","modified":"20`) || !strings.Contains(string(items), `"name":"renamed","size":4096,"type":"DIRECTORY"`) {
		t.Errorf("items: %s", items)
	}
	if old, _ := list["files"].(string); !strings.Contains(old, `"filename":"renamed"`) || !strings.Contains(old, `"mode":"drwxr-xr-x"`) {
		t.Errorf("files: %s", old)
	}
	w.problem("alice", "DELETE", "/folders/data/delete-files", `{"files":["a"]}`, 400, "invalid-api-params")
	w.ok("alice", "POST", "/folders/data/delete_files", `{"files":["a","x, y"],"recursive":true}`, 200)
	if got := w.ok("alice", "GET", "/folders/data/files?path=.", "", 200)["items"]; len(got.([]any)) != 1 {
		t.Errorf("after deleting: %v", got)
	}
}

// TestFolderStranger walks the routes with a folder: what belongs to another
// user answers as what does not exist.
func TestFolderStranger(t *testing.T) {
	w := newWorld(t)
	made := w.ok("alice", "POST", "/folders", `{"name":"data"}`, 201)
	id, _ := made["id"].(string)
	const nothing = "0123456789abcdef0123456789abcdef"
	walked := 0
	for _, r := range w.handler.Routes() {
		if !strings.Contains(r.Pattern, "{folder}") {
			continue
		}
		walked++
		query := "?new_name=x&path=x&size=1&files=x&file=x&target_name=copy&emails=stranger%40example.org&src=a&dst=b&target_path=x"
		theirs := w.problem("stranger", r.Method, strings.ReplaceAll(r.Pattern, "{folder}", id)+query, "", 404, "object-not-found")
		none := w.problem("stranger", r.Method, strings.ReplaceAll(r.Pattern, "{folder}", nothing)+query, "", 404, "object-not-found")
		theirs.Title = strings.ReplaceAll(theirs.Title, id, nothing)
		if diff := cmp.Diff(none, theirs); diff != "" {
			t.Errorf("%s %s tells a stranger more than that it does not exist:\n%s", r.Method, r.Pattern, diff)
		}
	}
	if walked < 20 {
		t.Errorf("only %d routes with a folder", walked)
	}
	for _, target := range []string{"DELETE /folders", "POST /folders/purge", "POST /folders/restore-from-trash-bin", "POST /folders/delete-from-trash-bin"} {
		method, path, _ := strings.Cut(target, " ")
		w.problem("stranger", method, path, `{"id":"`+id+`"}`, 404, "object-not-found")
	}
	for _, r := range w.handler.Routes() {
		if !strings.HasPrefix(r.Pattern, "/storage/") || r.Method == "OPTIONS" {
			continue
		}
		for _, token := range []string{"", "?token=x.y.z"} {
			if resp, text := w.call("", r.Method, r.Pattern+token, ""); resp.StatusCode != 401 {
				t.Errorf("%s %s%s: %d %s", r.Method, r.Pattern, token, resp.StatusCode, text)
			}
		}
	}
}

func TestFolderInvitations(t *testing.T) {
	w := newWorld(t)
	w.ok("alice", "POST", "/folders", `{"name":"data"}`, 201)
	if got := keys(w.ok("alice", "POST", "/folders/data/invite", `{"perm":"ro","user_ids":["stranger@example.org"]}`, 201), "invited_ids"); got != `[["stranger@example.org"]]` {
		t.Errorf("invited %s", got)
	}
	list, _ := w.ok("stranger", "GET", "/folders/invitations/list", "", 200)["invitations"].([]any)
	if len(list) != 1 {
		t.Fatalf("invitations: %v", list)
	}
	one, _ := list[0].(map[string]any)
	if got := keys(one, "inviter", "invitee", "perm", "state", "vfolder_name"); got != `["alice@example.org","stranger@example.org","ro","pending","data"]` {
		t.Errorf("invitation %s", got)
	}
	id, _ := one["id"].(string)
	w.ok("stranger", "POST", "/folders/invitations/accept", `{"inv_id":"`+id+`"}`, 200)
	if got := keys(w.ok("stranger", "GET", "/folders/data", "", 200), "is_owner", "permission"); got != `[false,"ro"]` {
		t.Errorf("shared %s", got)
	}
	w.problem("stranger", "POST", "/folders/data/request-upload", `{"path":"x","size":1}`, 403, "generic-forbidden")
	w.ok("stranger", "POST", "/folders/data/leave", "", 200)
	w.problem("stranger", "DELETE", "/folders/invitations/delete", `{"inv_id":"`+id+`"}`, 404, "object-not-found")
	w.problem("alice", "POST", "/folders/data/share", `{"emails":["stranger@example.org"]}`, 400, "invalid-api-params")
}

// send is a request to a storage endpoint.
func (w *world) send(method, target string, body io.Reader, headers ...string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, target, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
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

func address(grant map[string]any) string {
	base, _ := grant["url"].(string)
	token, _ := grant["token"].(string)
	return base + "?token=" + url.QueryEscape(token)
}

func TestStorage(t *testing.T) {
	w := newWorld(t)
	w.ok("alice", "POST", "/folders", `{"name":"data"}`, 201)
	for _, body := range []string{`{"path":"x"}`, `{"size":1}`, `{"path":"x","size":-1}`, `{"path":"../x","size":1}`, `{"path":"x","size":1,"mode":"0644x"}`} {
		w.problem("alice", "POST", "/folders/data/request-upload", body, 400, "invalid-api-params")
	}
	up := address(w.ok("alice", "POST", "/folders/data/request-upload", `{"path":"dir/file","size":10}`, 200))
	if !strings.HasPrefix(up, w.server.URL+"/storage/upload?token=") {
		t.Errorf("upload to %q", up)
	}
	resp, text := w.send("PATCH", up, strings.NewReader("0123456789"), "Tus-Resumable", "1.0.0", "Content-Type", "application/offset+octet-stream", "Upload-Offset", "0")
	if resp.StatusCode != 204 || resp.Header.Get("Upload-Offset") != "10" {
		t.Errorf("PATCH: %s %s", resp.Status, text)
	}
	down := address(w.ok("alice", "POST", "/folders/data/request-download", `{"file":"dir/file","archive":false}`, 200))
	if resp, text := w.send("GET", down, nil, "Range", "bytes=4-"); resp.StatusCode != 206 || text != "456789" {
		t.Errorf("GET: %s %q", resp.Status, text)
	}
	if resp, _ := w.send("HEAD", down, nil); resp.StatusCode != 200 || resp.ContentLength != 10 {
		t.Errorf("HEAD: %s %d", resp.Status, resp.ContentLength)
	}
	sum := strings.Replace(down, "/download?", "/checksum?", 1)
	if resp, text := w.send("GET", sum, nil); !strings.HasPrefix(text, `{"xxh64-tree":"4b7b45aa`) {
		t.Errorf("checksum: %s %s", resp.Status, text)
	}
	zip := address(w.ok("alice", "POST", "/folders/data/request-download-archive", `{"files":["dir"],"filename":"all.zip"}`, 200))
	if resp, text := w.send("GET", zip, nil); resp.StatusCode != 200 || !strings.HasPrefix(text, "PK") {
		t.Errorf("zip: %s", resp.Status)
	}
	tree := strings.Replace(address(w.ok("alice", "POST", "/folders/data/request-download", `{"path":".","archive":true}`, 200)), "/download?", "/tree?", 1)
	if resp, text := w.send("GET", tree, nil); !strings.Contains(text, `{"path":"dir/file","type":"FILE","size":10,"mode":420,"modified":`) || !strings.HasSuffix(text, "{\"end\":true}\n") {
		t.Errorf("tree: %s %s", resp.Status, text)
	}
	var stream bytes.Buffer
	a := archive.NewWriter(&stream)
	if err := errors.Join(a.WriteHeader(&tar.Header{Name: "more", Mode: 0o644, Typeflag: tar.TypeReg}), a.Close()); err != nil {
		t.Fatal(err)
	}
	fill := address(w.ok("alice", "POST", "/folders/data/request-upload-archive", `{"path":"new"}`, 200))
	if resp, text := w.send("POST", fill, &stream); text != `{"files":1,"bytes":0}` {
		t.Errorf("fill: %s %s", resp.Status, text)
	}
	if resp, text := w.send("POST", strings.Replace(fill, "?", "/compare?", 1), strings.NewReader("5 0 more\x000 0 more\x00")); text != "1\nend\n" {
		t.Errorf("compare: %s %q", resp.Status, text)
	}
	if resp, text := w.send("POST", strings.Replace(fill, "?", "/compare?", 1), strings.NewReader("5 0 ../more\x00")); resp.StatusCode != 400 {
		t.Errorf("compare: %s %q", resp.Status, text)
	}
}

// TestStorageAddress: what proxies say counts if they are trusted; here they are.
func TestStorageAddress(t *testing.T) {
	w := newWorld(t)
	w.ok("alice", "POST", "/folders", `{"name":"data"}`, 201)
	req := w.request("alice", "POST", "/folders/data/request-upload", `{"path":"x","size":1}`)
	req.Header.Set("X-Forwarded-Proto", "https")
	req.Header.Set("X-Forwarded-Host", "folders.example.org, inner")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var grant map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&grant); err != nil || grant["url"] != "https://folders.example.org/storage/upload" {
		t.Errorf("%v, %v", grant, err)
	}
}

// TestTokensAreNotLogged: who reads the log cannot do what others may.
func TestTokensAreNotLogged(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t)
	loud, err := api.New(api.Options{
		Sessions: w.sessions, Accounts: w.accounts, Images: w.images, Folders: w.folders, Dotfiles: w.dotfiles,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.ok("alice", "POST", "/folders", `{"name":"data"}`, 201)
	grant := w.ok("alice", "POST", "/folders/data/request-upload", `{"path":"x","size":10}`, 200)
	token, _ := grant["token"].(string)
	for _, method := range []string{"HEAD", "PATCH", "POST", "DELETE", "GET"} {
		loud.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), method, address(grant), nil))
	}
	if text := log.String(); !strings.Contains(text, "/storage/upload") || strings.Contains(text, token[len(token)-20:]) {
		t.Errorf("the log has the token, or nothing: %s", text)
	}
}

func TestFolderLists(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"one", "two", ".ssh"} {
		w.ok("alice", "POST", "/folders", `{"name":"`+name+`"}`, 201)
	}
	const query = `query($filter: String, $order: String) { vfolder_list(limit: 10, offset: 0, filter: $filter, order: $order) { items { name permission ownership_type creator group } total_count } }`
	for _, c := range []struct{ user, query, variables, want string }{
		{
			"alice", query, `{"filter":"name like \"%o%\"","order":"-name"}`,
			`{"data":{"vfolder_list":{"items":[{"name":"two","permission":"wd","ownership_type":"user","creator":"alice@example.org","group":null},{"name":"one","permission":"wd","ownership_type":"user","creator":"alice@example.org","group":null}],"total_count":2}}}`,
		},
		{"stranger", query, `{}`, `{"data":{"vfolder_list":{"items":[],"total_count":0}}}`},
		{"admin", `{ vfolder_list(limit: 1, offset: 1) { items { name } total_count } }`, `{}`, `{"data":{"vfolder_list":{"items":[{"name":"one"}],"total_count":3}}}`},
		{"admin", `{ vfolder_own_list(limit: 1, offset: 0) { total_count } vfolder(id: "one") { name } }`, `{}`, `{"data":{"vfolder_own_list":{"total_count":0},"vfolder":null}}`},
		{"alice", `{ vfolder_invited_list(limit: 1, offset: 0) { total_count } vfolder_project_list(limit: 1, offset: 0) { total_count } vfolder(id: "one") { name cur_size } }`, `{}`, `{"data":{"vfolder_invited_list":{"total_count":0},"vfolder_project_list":{"total_count":0},"vfolder":{"name":"one","cur_size":0}}}`},
	} {
		if got := w.gql(c.user, c.query, c.variables); got != c.want {
			t.Errorf("%s: got  %s\nwant %s", c.user, got, c.want)
		}
	}
}
