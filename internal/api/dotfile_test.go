package api_test

import "testing"

func TestDotfiles(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		user, method, body string
		status             int
		want               string
	}{
		{"alice", "POST", `{"path":".bashrc","data":"alias x=y","permission":"644","owner_access_key":null}`, 200, `{}`},
		{"alice", "GET", `{"path":".bashrc"}`, 200, `{"data":"alias x=y","path":".bashrc","perm":"644"}`},
		{"alice", "PATCH", `{"path":".bashrc","data":"","permission":"600"}`, 200, `{}`},
		{"alice", "GET", ``, 200, `[{"data":"","path":".bashrc","permission":"600"}]`},
		{"stranger", "GET", ``, 200, `[]`},
		{"admin", "GET", `{"owner_access_key":"AKIAalice"}`, 200, `[{"data":"","path":".bashrc","permission":"600"}]`},
		{"alice", "DELETE", `{"path":".bashrc"}`, 200, `{"success":true}`},
	} {
		if resp, text := w.call(c.user, c.method, "/user-config/dotfiles", c.body); resp.StatusCode != c.status || text != c.want {
			t.Errorf("%s %s %s: %d %s", c.user, c.method, c.body, resp.StatusCode, text)
		}
	}
	w.ok("alice", "POST", "/folders", `{"name":".cache"}`, 201)
	for _, body := range []string{`{}`, `{"path":"../x"}`, `{"path":".ssh"}`, `{"path":".cache"}`, `{"path":"x","permission":"rwx"}`} {
		w.problem("alice", "POST", "/user-config/dotfiles", body, 400, "invalid-api-params")
	}
	w.problem("alice", "GET", "/user-config/dotfiles?path=none", "", 404, "object-not-found")
	w.problem("alice", "DELETE", "/user-config/dotfiles?path=none", "", 404, "object-not-found")
	w.problem("alice", "PATCH", "/user-config/dotfiles?path=none", "", 404, "object-not-found")

	w.ok("alice", "POST", "/user-config/bootstrap-script", `{"script":"echo \"hello\"\n"}`, 200)
	if _, text := w.call("alice", "GET", "/user-config/bootstrap-script", ""); text != `"echo \"hello\"\n"` {
		t.Errorf("script: %s", text)
	}
	if _, text := w.call("stranger", "GET", "/user-config/bootstrap-script", ""); text != `""` {
		t.Errorf("the stranger's script: %s", text)
	}
}
