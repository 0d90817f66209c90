package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/session"
)

// create posts a create and returns what the service was asked for.
func (w *world) create(t *testing.T, target, body string) session.CreateRequest {
	t.Helper()
	resp, text := w.call("alice", "POST", target, body)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s: %d %s", target, body, resp.StatusCode, text)
	}
	return w.sessions.created
}

// defaults is what a create without any option asks for.
func defaults() session.CreateRequest {
	return session.CreateRequest{
		Name: "mysession", Image: "python", Type: backendai.Interactive, Domain: "default", Group: "default", Priority: 10, ClusterSize: 1, Reuse: true,
		Resources: map[string]string{}, ResourceOpts: map[string]string{}, Environ: map[string]string{},
	}
}

// TestCreateAliases sends every key under every name and in every form that
// clients use; all must mean the same.
func TestCreateAliases(t *testing.T) {
	w := newWorld(t)
	if diff := cmp.Diff(defaults(), w.create(t, "/session", `{"image":"python","name":"mysession"}`)); diff != "" {
		t.Errorf("defaults:\n%s", diff)
	}
	for _, c := range []struct {
		keys  []string // of the body
		value string
		want  func(*session.CreateRequest)
	}{
		{[]string{"architecture", "arch"}, `"aarch64"`, func(r *session.CreateRequest) { r.Architecture = "aarch64" }},
		{[]string{"type", "sessionType", "session_type"}, `"BATCH"`, func(r *session.CreateRequest) { r.Type = backendai.Batch }},
		{[]string{"domain", "domainName", "domain_name"}, `"d"`, func(r *session.CreateRequest) { r.Domain = "d" }},
		{[]string{"group", "groupName", "group_name"}, `"g"`, func(r *session.CreateRequest) { r.Group = "g" }},
		{[]string{"enqueueOnly", "enqueue_only"}, `true`, func(r *session.CreateRequest) { r.EnqueueOnly = true }},
		{[]string{"enqueueOnly", "enqueue_only"}, `"true"`, func(r *session.CreateRequest) { r.EnqueueOnly = true }},
		{[]string{"enqueueOnly", "enqueue_only"}, `1`, func(r *session.CreateRequest) { r.EnqueueOnly = true }},
		{[]string{"maxWaitSeconds", "max_wait_seconds"}, `"5"`, func(r *session.CreateRequest) { r.MaxWait = 5 * time.Second }},
		{[]string{"reuseIfExists", "reuse"}, `false`, func(r *session.CreateRequest) { r.Reuse = false }},
		{[]string{"startupCommand", "startup_command"}, `"ls"`, func(r *session.CreateRequest) { r.Startup = "ls" }},
		{[]string{"bootstrap_script", "bootstrapScript"}, `"id"`, func(r *session.CreateRequest) { r.Bootstrap = "id" }},
		{[]string{"batch_timeout", "batchTimeout"}, `"2h"`, func(r *session.CreateRequest) { r.BatchTimeout = 2 * time.Hour }},
		{[]string{"batch_timeout", "batchTimeout"}, `90`, func(r *session.CreateRequest) { r.BatchTimeout = 90 * time.Second }},
		{[]string{"starts_at", "startsAt"}, `"2030-01-02T03:04:05+09:00"`, func(r *session.CreateRequest) { r.StartsAt = time.Date(2030, 1, 1, 18, 4, 5, 0, time.UTC) }},
		{[]string{"callback_url", "callbackUrl", "callbackURL"}, `"http://x"`, func(r *session.CreateRequest) { r.CallbackURL = "http://x" }},
		{[]string{"dependencies"}, `["a","b"]`, func(r *session.CreateRequest) { r.Dependencies = []string{"a", "b"} }},
		{[]string{"dependencies"}, `null`, func(*session.CreateRequest) {}},
		{[]string{"clusterSize", "cluster_size"}, `"2"`, func(r *session.CreateRequest) { r.ClusterSize = 2 }},
		{[]string{"clusterMode", "cluster_mode"}, `"SINGLE-NODE"`, func(*session.CreateRequest) {}},
		{[]string{"tag"}, `"t"`, func(r *session.CreateRequest) { r.Tag = "t" }},
		{[]string{"priority"}, `20`, func(r *session.CreateRequest) { r.Priority = 20 }},
		{[]string{"unknown_key"}, `{"x":1}`, func(*session.CreateRequest) {}},
		{[]string{"config.resources"}, `{"cpu":2,"mem":"4g","gpu":null}`, func(r *session.CreateRequest) { r.Resources = map[string]string{"cpu": "2", "mem": "4g"} }},
		{[]string{"config.resource_opts", "config.resourceOpts"}, `{"shmem":"1g","allow_fractional_resource_fragmentation":true}`, func(r *session.CreateRequest) {
			r.ResourceOpts = map[string]string{"shmem": "1g", "allow_fractional_resource_fragmentation": "true"}
		}},
		{[]string{"config.environ"}, `{"A":"1","B":2}`, func(r *session.CreateRequest) { r.Environ = map[string]string{"A": "1", "B": "2"} }},
		{[]string{"config.preopen_ports", "config.preopenPorts"}, `["9000",9001]`, func(r *session.CreateRequest) { r.PreopenPorts = []int{9000, 9001} }},
		{[]string{"config.scalingGroup", "config.scaling_group"}, `"default"`, func(*session.CreateRequest) {}},
		{[]string{"config.agentList", "config.agent_list"}, `null`, func(*session.CreateRequest) {}},
		{[]string{"config.clusterSize"}, `3`, func(r *session.CreateRequest) { r.ClusterSize = 3 }},
		{[]string{"config.mounts"}, `["data","x/sub"]`, func(r *session.CreateRequest) {
			r.Mounts = []backendai.Mount{{Source: "data"}, {Source: "x/sub"}}
		}},
		{[]string{"config.mount_map", "config.mountMap"}, `{"data":"here","more":"/opt/more"}`, func(r *session.CreateRequest) {
			r.Mounts = []backendai.Mount{{Source: "data", Target: "/home/work/here"}, {Source: "more", Target: "/opt/more"}}
		}},
		{[]string{"config.mount_ids"}, `["11111111-2222-4333-8444-555555555555"]`, func(r *session.CreateRequest) {
			r.Mounts = []backendai.Mount{{Source: "11111111-2222-4333-8444-555555555555"}}
		}},
	} {
		for _, key := range c.keys {
			object := map[string]any{"image": "python", "name": "mysession"}
			var value any
			if err := json.Unmarshal([]byte(c.value), &value); err != nil {
				t.Fatal(err)
			}
			if inner, ok := strings.CutPrefix(key, "config."); ok {
				object["config"] = map[string]any{inner: value}
			} else {
				object[key] = value
			}
			body, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			c.want(&want)
			got := w.create(t, "/session", string(body))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s:\n%s", body, diff)
			}
		}
	}
	for _, body := range []string{
		`{"lang":"python","clientSessionToken":"mysession"}`, `{"image":"python","session_name":"mysession"}`,
	} {
		if diff := cmp.Diff(defaults(), w.create(t, "/session/_/create", body)); diff != "" {
			t.Errorf("%s:\n%s", body, diff)
		}
	}
	if diff := cmp.Diff(defaults(), w.create(t, "/kernel?image=python&name=mysession&owner_access_key=AKIAalice", "")); diff != "" {
		t.Errorf("in the query:\n%s", diff)
	}
}

func TestMountOptions(t *testing.T) {
	w := newWorld(t)
	got := w.create(t, "/session", `{"image":"python","name":"mysession","config":{"mounts":["data","other"],
		"mount_options":{"data":{"type":"bind","permission":"ro","subpath":"a"},"other":{"perm":"rw","mount_destination":"/opt/x"}}}}`)
	want := []backendai.Mount{{Source: "data", Subpath: "a", Permission: "ro"}, {Source: "other", Target: "/opt/x", Permission: "rw"}}
	if diff := cmp.Diff(want, got.Mounts); diff != "" {
		t.Error(diff)
	}
}

// TestCreateFaults tells each wrong key by its name, all at once.
func TestCreateFaults(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string][]string{
		`{}`: {"image", "name"},
		`{"image":"x","name":"mysession","priority":"high","maxWaitSeconds":-1,"enqueueOnly":"maybe"}`: {"priority", "maxWaitSeconds", "enqueueOnly"},
		`{"image":["x"],"name":"mysession"}`:                                                  {"image"},
		`{"image":"x","name":"mysession","clusterMode":"mesh"}`:                               {"clusterMode"},
		`{"image":"x","name":"mysession","batch_timeout":"soon","starts_at":"then"}`:          {"batch_timeout", "starts_at"},
		`{"image":"x","name":"mysession","config":"none"}`:                                    {"config"},
		`{"image":"x","name":"mysession","config":{"resources":[1]}}`:                         {"config.resources"},
		`{"image":"x","name":"mysession","config":{"resources":{"cpu":{}}}}`:                  {"config.resources.cpu"},
		`{"image":"x","name":"mysession","config":{"preopen_ports":["x"]}}`:                   {"config.preopen_ports"},
		`{"image":"x","name":"mysession","config":{"preopen_ports":[80]}}`:                    {"config.preopen_ports"},
		`{"image":"x","name":"mysession","config":{"scaling_group":"gpu"}}`:                   {"config.scaling_group"},
		`{"image":"x","name":"mysession","config":{"agent_list":["a"]}}`:                      {"config.agent_list"},
		`{"image":"x","name":"mysession","config":{"attach_network":"u"}}`:                    {"config.attach_network"},
		`{"image":"x","name":"mysession","config":{"mount_map":{"a":""}}}`:                    {"config.mount_map.a"},
		`{"image":"x","name":"mysession","config":{"mounts":["a"],"mount_options":{"b":{}}}}`: {"config.mount_options.b"},
		`{"image":"x","name":"mysession","config":{"mounts":["a"],"mount_options":{"a":{"perm":"x","type":"tmpfs"}}}}`: {
			"config.mount_options.a.permission", "config.mount_options.a.type",
		},
	} {
		p := w.problem("alice", "POST", "/session", body, 400, "invalid-api-params")
		faults, _ := p.Data.(map[string]any)
		for _, name := range want {
			if faults[name] == nil {
				t.Errorf("%s: no fault for %s in %v", body, name, faults)
			}
		}
		if len(faults) != len(want) {
			t.Errorf("%s: faults %v; want %v", body, faults, want)
		}
	}
}

func TestCreateReplies(t *testing.T) {
	w := newWorld(t)
	ports := `[{"name":"sshd","protocol":"tcp","ports":[2200]}]`
	failed := theSession()
	failed.Status, failed.StatusInfo, failed.StatusMessage = backendai.StatusError, "failed-to-start", "it died"
	pending := theSession()
	pending.Status = backendai.StatusPending
	const head = `{"sessionId":"11111111-2222-4333-8444-555555555555","sessionName":"mysession",`
	for name, c := range map[string]struct {
		result session.CreateResult
		status int
		want   string
	}{
		"running":   {session.CreateResult{Session: theSession(), Created: true}, 201, head + `"status":"RUNNING","created":true,"servicePorts":` + ports + `}`},
		"reused":    {session.CreateResult{Session: theSession()}, 200, head + `"status":"RUNNING","created":false,"servicePorts":` + ports + `,"service_ports":` + ports + `}`},
		"failed":    {session.CreateResult{Session: failed, Created: true}, 201, head + `"status":"ERROR","statusInfo":"failed-to-start","statusMessage":"it died","created":true,"servicePorts":[]}`},
		"timed out": {session.CreateResult{Session: pending, Created: true, TimedOut: true}, 201, head + `"status":"TIMEOUT","created":true,"servicePorts":[]}`},
	} {
		w.sessions.create = func(context.Context, session.CreateRequest) (session.CreateResult, error) { return c.result, nil }
		resp, text := w.call("alice", "POST", "/session", `{"image":"python","name":"mysession"}`)
		if resp.StatusCode != c.status || text != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", name, resp.StatusCode, text, c.status, c.want)
		}
	}
}
