package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/client"
)

func TestParseMount(t *testing.T) {
	for text, want := range map[string]backendai.Mount{
		"data":                                 {Source: "data"},
		".ssh":                                 {Source: ".ssh"},
		"my.data-2":                            {Source: "my.data-2"},
		"2024":                                 {Source: "2024"},
		"data=/data":                           {Source: "data", Target: "/data"},
		"data:/data":                           {Source: "data", Target: "/data"},
		"data=sub/dir":                         {Source: "data", Target: "sub/dir"},
		"a=b:c":                                {}, // a second separator
		"data/sub":                             {Source: "data/sub"},
		`a\:b:/c`:                              {Source: "a:b", Target: "/c"},
		`"a=b"=/c`:                             {Source: "a=b", Target: "/c"},
		"type=/x":                              {}, // the long form, and no such type
		"":                                     {},
		":":                                    {},
		"=/x":                                  {},
		"data=":                                {},
		`"data`:                                {},
		`data\`:                                {},
		"data:/x:ro":                           {},
		"source=d":                             {Source: "d"},
		"type=bind,src=d":                      {Source: "d"},
		"type=volume,src=":                     {},
		"type=bind,source=d,target=/x,perm=ro": {Source: "d", Target: "/x", Permission: "ro"},
		"type=bind,source=d,dst=/x,permission=wd":       {Source: "d", Target: "/x", Permission: "wd"},
		`type=bind,source="a,b",target=/x\,y,perm=rw`:   {Source: "a,b", Target: "/x,y", Permission: "rw"},
		"type=bind,source=d,perm=rx":                    {},
		"type=bind,source=d,readonly":                   {},
		"type=bind,source=d,colour=red":                 {},
		"type=bind,target=/x":                           {},
		"type=bind,source=d,destination=/x,perm=ro,":    {},
		"type=bind,source='x=y',target=/home/work/data": {Source: "x=y", Target: "/home/work/data"},
	} {
		got, err := parseMount(text)
		if (err != nil) != (want == backendai.Mount{}) || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "mount ") {
			t.Errorf("%s: %v does not name the mount", text, err)
		}
	}
}

func FuzzParseMount(f *testing.F) {
	for _, text := range []string{"data", "a=b", "a:b", `a\:b`, "type=bind,source=d,target=/x,perm=ro", `"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMount(text)
		if err == nil && m.Source == "" {
			t.Errorf("%q is a mount of nothing", text)
		}
		if err != nil && m != (backendai.Mount{}) {
			t.Errorf("%q is both %+v and wrong: %v", text, m, err)
		}
	})
}

func TestParseBind(t *testing.T) {
	for text, want := range map[string]bindAddress{
		"9900": {"", 9900}, "127.0.0.1:9900": {"", 9900}, "localhost:9900": {"", 9900}, "0.0.0.0:80": {"0.0.0.0", 80},
		"[::1]:80": {"::1", 80}, "::1:80": {"::1", 80}, "0": {"", 0}, ":8080": {"", 8080},
	} {
		if got, err := parseBind(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "http", "host:", "65536", "-1", "9900:host", "1.5"} {
		_, err := parseBind(text)
		if e, ok := errors.AsType[*backendai.Error](err); !ok || e.Hint == "" || !strings.Contains(e.Title, text) || exitCode(err) != exitFailure {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseArguments(t *testing.T) {
	for _, c := range []struct {
		texts []string
		want  map[string][]string
	}{
		{nil, map[string][]string{}},
		{[]string{`"--flag"`}, nil}, // quotes of the example stand in the shell's quotes
		{[]string{"--flag"}, map[string][]string{"--flag": nil}},
		{[]string{"--option value"}, map[string][]string{"--option": {"value"}}},
		{[]string{"--option=value", "-x 1"}, map[string][]string{"--option": {"value"}, "-x": {"1"}}},
		{[]string{"--list a 'b c'"}, map[string][]string{"--list": {"a", "b c"}}},
		{[]string{"--list a", "--list b"}, map[string][]string{"--list": {"a", "b"}}},
	} {
		got, err := parseArguments(c.texts)
		if c.want == nil {
			c.want = map[string][]string{"--flag": nil}
		}
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", c.texts, err, diff)
		}
	}
	for _, text := range []string{"value", "--a 'open"} {
		if _, err := parseArguments([]string{text}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestCreateOptions holds the request against the options that it comes from.
func TestCreateOptions(t *testing.T) {
	config := client.Config{Domain: "default", Group: "lab", Mounts: []string{"always", "data"}}
	request := func(args ...string) (client.CreateRequest, error) {
		var o createOptions
		cmd := newStartCommand(newEnv(nil, nil, nil, noEnv), "start")
		cmd.ResetFlags()
		o.flags(cmd.Flags())
		if err := cmd.ParseFlags(args); err != nil {
			return client.CreateRequest{}, err
		}
		return o.request("python", config, cmd.Flags().Changed("priority"))
	}
	got, err := request("-t", "mysession", "-r", "cpu=2", "-r", "mem=256", "--resource-opts", "shmem=64m", "-e", "A=b=c", "-e", "EMPTY=",
		"-v", "data=/data", "-m", ".ssh", "--preopen", "8000,9000", "--tag", "x", "--priority", "0", "--max-wait", "5", "--no-reuse",
		"--sgroup", "gpu", "--assign-agent", "a, b", "-d", "other", "--cluster-size", "2")
	zero := 0
	want := client.CreateRequest{
		Name: "mysession", Image: "python", Type: backendai.Interactive, Domain: "other", Group: "lab", Tag: "x", Priority: &zero,
		Resources: map[string]string{"cpu": "2", "mem": "256m"}, ResourceOpts: map[string]string{"shmem": "64m"},
		Environ:      map[string]string{"A": "b=c", "EMPTY": ""},
		Mounts:       []backendai.Mount{{Source: ".ssh"}, {Source: "data", Target: "/data"}, {Source: "always"}},
		PreopenPorts: []int{8000, 9000}, MaxWait: 5e9, NoReuse: true, ScalingGroup: "gpu", Agents: []string{"a", "b"},
		ClusterSize: 2, ClusterMode: "single-node",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := request(); err != nil || backendai.ValidateSessionName(got.Name) != nil {
		t.Errorf("without a name: %q, %v", got.Name, err)
	}
	for _, args := range [][]string{
		{"-t", "abc"},
		{"-t", "-dash"},
		{"-t", "has space"},
		{"-t", strings.Repeat("x", 65)},
		{"-r", "cpu=-1"},
		{"-r", "cpu=0x1"},
		{"-r", "mem=abc"},
		{"-r", "mem"},
		{"-r", "=1"},
		{"--resource-opts", "shmem=lots"},
		{"-e", "1A=b"},
		{"-e", "A"},
		{"-m", ""},
		{"-m", "a", "-m", "a=/b"},
		{"--preopen", "80"},
		{"--preopen", "http"},
		{"--type", "loud"},
		{"--type", "batch"},
		{"-c", "true"},
		{"--starts-at", "10m"},
		{"--timeout", "10m"},
		{"--max-wait", "-1"},
		{"--cluster-size", "0"},
		{"--cluster-mode", "x"},
		{"--bootstrap-script", "no/such/file"},
	} {
		_, err := request(args...)
		if err == nil || exitCode(err) != exitUsage {
			t.Errorf("%q: %v, exit code %d", args, err, exitCode(err))
		}
	}
}
