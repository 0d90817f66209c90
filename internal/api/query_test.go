package api_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func (w *world) gql(user, query, variables string) string {
	w.t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": json.RawMessage(variables)})
	if err != nil {
		w.t.Fatal(err)
	}
	resp, text := w.call(user, "POST", "/admin/gql", string(body))
	if resp.StatusCode != 200 {
		w.t.Fatalf("%s: status %d: %s", query, resp.StatusCode, text)
	}
	return text
}

func TestGraphQL(t *testing.T) {
	w := newWorld(t)
	const id = "11111111-2222-4333-8444-555555555555"
	for name, c := range map[string]struct{ user, query, variables, want string }{
		"ps keypair": {
			"alice", `query { keypair { user_id access_key secret_key is_active is_admin } }`, `{}`,
			`{"data":{"keypair":{"user_id":"alice@example.org","access_key":"AKIAalice","secret_key":"secret-alice","is_active":true,"is_admin":false}}}`,
		},
		"ps keeps the order of keys": {
			"alice", `query($limit:Int!, $offset:Int!, $status: String, $access_key: String, $filter: String, $order: String) {
				compute_session_list(limit:$limit, offset:$offset, status:$status, access_key:$access_key, filter:$filter, order:$order) {
				items { status name session_id type occupied_slots result created_at } total_count } }`,
			`{"limit":10,"offset":0,"status":"RUNNING,RUNNING_DEGRADED","access_key":null,"filter":null,"order":null}`,
			`{"data":{"compute_session_list":{"items":[{"status":"RUNNING","name":"mysession","session_id":"` + id + `","type":"INTERACTIVE","occupied_slots":"{\"cpu\":\"1\",\"mem\":\"1073741824\"}","result":"UNDEFINED","created_at":"2026-01-02T03:04:05+00:00"}],"total_count":1}}}`,
		},
		"statuses of another generation only": {
			"alice", `{ compute_session_list(limit:10, offset:0, status:"PREEMPTED") { items { name } total_count } }`, `{}`,
			`{"data":{"compute_session_list":{"items":[],"total_count":0}}}`,
		},
		"info": {
			"alice", `query($id: UUID!) { compute_session(id:$id) { name containers { id cluster_role preopen_ports live_stat } dependencies { name id } idle_checks status_data } }`,
			`{"id":"` + id + `"}`,
			`{"data":{"compute_session":{"name":"mysession","containers":[{"id":"` + id + `","cluster_role":"main","preopen_ports":[],"live_stat":"{}"}],"dependencies":[],"idle_checks":"{}","status_data":"{}"}}}`,
		},
		"info of a stranger": {
			"stranger", `query($id: UUID!) { compute_session(id:$id) { name } }`, `{"id":"` + id + `"}`, `{"data":{"compute_session":null}}`,
		},
		"ps of a stranger": {
			"stranger", `{ compute_session_list(limit:10, offset:0) { items { name } total_count } }`, `{}`,
			`{"data":{"compute_session_list":{"items":[],"total_count":0}}}`,
		},
		"images": {
			"alice", `query($is_operation: Boolean) { images(is_operation:$is_operation) { name registry architecture tag digest size_bytes aliases } }`, `{"is_operation":null}`,
			`{"data":{"images":[{"name":"python","registry":"localhost","architecture":"x86_64","tag":"3.11-debian12","digest":"sha256:1","size_bytes":8589934592,"aliases":["python"]}]}}`,
		},
		"users": {
			"admin", `{ user_list(limit:2, offset:1, status:"active") { items { username role groups { id name } } total_count } }`, `{}`,
			`{"data":{"user_list":{"items":[{"username":"alice","role":"user","groups":[{"id":"default","name":"default"}]},{"username":"stranger","role":"user","groups":[{"id":"default","name":"default"}]}],"total_count":3}}}`,
		},
		"a user's own list": {
			"alice", `{ user_list(limit:10, offset:0) { items { username } total_count } }`, `{}`, `{"data":{"user_list":{"items":[{"username":"alice"}],"total_count":1}}}`,
		},
		"keypairs": {
			"admin", `{ keypair_list(limit:10, offset:0, email:"alice@example.org") { items { access_key user_info { full_name } concurrency_used } total_count } }`, `{}`,
			`{"data":{"keypair_list":{"items":[{"access_key":"AKIAalice","user_info":{"full_name":"Full alice"},"concurrency_used":0}],"total_count":1}}}`,
		},
		"agents": {
			"admin", `{ agent_list(limit:10, offset:0, status:"ALIVE") { items { id status available_slots occupied_slots live_stat } total_count } }`, `{}`,
			`{"data":{"agent_list":{"items":[{"id":"i-local","status":"ALIVE","available_slots":"{\"cpu\":\"2\",\"mem\":\"4294967296\"}","occupied_slots":"{\"cpu\":\"1\",\"mem\":\"1073741824\"}","live_stat":"{}"}],"total_count":1}}}`,
		},
		"agents are for superadmins": {
			"alice", `{ agent_list(limit:10, offset:0) { total_count } }`, `{}`,
			`{"data":{"agent_list":null},"errors":[{"message":"only a superadmin may do this"}]}`,
		},
		"small answers": {
			"alice", `{ groups { name } domains { name } scaling_groups { name } keypair_resource_policies { name max_vfolder_size } }`, `{}`,
			`{"data":{"groups":[{"name":"default"}],"domains":[{"name":"default"}],"scaling_groups":[{"name":"default"}],"keypair_resource_policies":[{"name":"default","max_vfolder_size":0}]}}`,
		},
		"create user": {
			"admin", `mutation($email: String!, $input: UserInput!) { create_user(email:$email, props:$input) { ok msg user { email } keypair { access_key secret_key } } }`,
			`{"email":"new@example.org","input":{"username":"new","password":"pw","need_password_change":false,"role":"user","is_active":true,"group_ids":[]}}`,
			`{"data":{"create_user":{"ok":true,"msg":"success","user":{"email":"new@example.org"},"keypair":{"access_key":"AKIANEW","secret_key":"new secret"}}}}`,
		},
		"create user that exists": {
			"admin", `mutation { create_user(email:"taken@example.org", props:{username:"x", password:"y"}) { ok msg user { email } } }`, `{}`,
			`{"data":{"create_user":{"ok":false,"msg":"the user exists already","user":null}}}`,
		},
		"create user by a user": {
			"alice", `mutation { create_user(email:"x@example.org", props:{username:"x", password:"y"}) { ok } }`, `{}`,
			`{"data":{"create_user":null},"errors":[{"message":"only a superadmin may do this"}]}`,
		},
		"alias": {
			"admin", `mutation { alias_image(alias:"py", target:"python") { ok msg } }`, `{}`, `{"data":{"alias_image":{"ok":true,"msg":"success"}}}`,
		},
		"alias by a user": {
			"alice", `mutation { alias_image(alias:"py", target:"python") { ok msg } }`, `{}`,
			`{"data":{"alias_image":null},"errors":[{"message":"only a superadmin may do this"}]}`,
		},
		"dealias of nothing": {
			"admin", `mutation { dealias_image(alias:"py") { ok msg } }`, `{}`, `{"data":{"dealias_image":{"ok":false,"msg":"no such alias: \"py\""}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := w.gql(c.user, c.query, c.variables); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestGraphQLBounds(t *testing.T) {
	w := newWorld(t)
	deep := strings.Repeat("dependencies { ", 20) + "name" + strings.Repeat(" }", 20)
	for name, query := range map[string]string{
		"depth":      `{ compute_session(id:"x") { ` + deep + ` } }`,
		"length":     `{ keypair { ` + strings.Repeat("access_key ", 5000) + ` } }`,
		"page":       `{ compute_session_list(limit:1000, offset:0) { total_count } }`,
		"no field":   `{ keypair { password } }`,
		"no query":   `{`,
		"selections": `{ ` + aliases(2100) + ` }`,
	} {
		if got := w.gql("alice", query, `{}`); !strings.Contains(got, `"errors":[{"message":"`) {
			t.Errorf("%s: %.200s", name, got)
		}
	}
}

func aliases(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("a")
		b.WriteString(strings.Repeat("b", i%10))
		b.WriteString(string(rune('a'+i%26)) + ":keypair{is_admin} ")
	}
	return b.String()
}

func TestLegacyGraphQL(t *testing.T) {
	w := newWorld(t)
	if resp, text := w.call("alice", "POST", "/admin/graphql", `{"query":"{ keypair { access_key } }"}`); resp.StatusCode != 200 || text != `{"keypair":{"access_key":"AKIAalice"}}` {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	w.problem("alice", "POST", "/admin/graphql", `{"query":"{ nothing }"}`, 400, "graphql-error")
}
