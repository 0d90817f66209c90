package service_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"backendai"
	"backendai/internal/image/service"
)

func TestParseServicePorts(t *testing.T) {
	app := func(name string, p backendai.Protocol, ports ...int) backendai.App {
		return backendai.App{Name: name, Protocol: p, Ports: ports}
	}
	for _, c := range []struct {
		label string
		want  []backendai.App
		fault string
	}{
		{label: ""},
		{label: " "},
		{label: "jupyter:http:8080", want: []backendai.App{app("jupyter", "http", 8080)}},
		{
			label: "ipython:pty:3000,jupyter:http:8080, my_app-2:tcp:[9000,9001],x:vnc:5900,y:rdp:3389",
			want: []backendai.App{
				app("jupyter", "http", 8080), app("my_app-2", "tcp", 9000, 9001), app("x", "vnc", 5900), app("y", "rdp", 3389),
			},
		},
		{label: "p:preopen:5000", want: []backendai.App{app("p", "preopen", 5000)}},
		{label: "jupyter", fault: "form name:protocol:port"},
		{label: "jupyter:http", fault: "form name:protocol:port"},
		{label: "ju pyter:http:8080", fault: "not a name"},
		{label: "jupyter:gopher:8080", fault: "protocols"},
		{label: "jupyter:http:80", fault: "not between"},
		{label: "jupyter:http:1024", fault: "not between"},
		{label: "jupyter:http:65535", fault: "not between"},
		{label: "jupyter:http:65536", fault: "not a port"},
		{label: "jupyter:http:-8080", fault: "not a port"},
		{label: "jupyter:http:2200", fault: "reserved"},
		{label: "jupyter:http:7681", fault: "reserved"},
		{label: "jupyter:http:8080,lab:http:8080", fault: "port 8080 is there twice"},
		{label: "jupyter:http:8080,jupyter:http:8081", fault: "name is there twice"},
		{label: "a:tcp:[9000,9001", fault: "no end"},
		{label: "a:tcp:[]", fault: "not a port"},
		{label: "sshd:tcp:8022", fault: "built into"},
		{label: "a:tcp:9000,", fault: "form"},
		{label: strings.Repeat("a", 1<<17), fault: "limit"},
	} {
		got, err := service.ParseServicePorts(c.label)
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%.60q: error %v, want one with %q", c.label, err, c.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.label, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: %s", c.label, diff)
		}
	}
}

func TestExpand(t *testing.T) {
	v := service.NewVariables([]int{8080, 8081}, "", "127.0.0.1")
	v["cfg"] = service.Text("/tmp/x.py")
	v["out"] = service.Fields(map[string]string{"out": "hello", "err": ""})
	for _, c := range []struct{ template, want, fault string }{
		{"", "", ""},
		{"plain $HOME", "plain $HOME", ""},
		{"{ports[0]}/{ports[1]} {ports}", "8080/8081 [8080, 8081]", ""},
		{"{runtime_path} {loopback} {cfg}", "/bin/true 127.0.0.1 /tmp/x.py", ""},
		{"{out[out]}|{out[err]}|", "hello||", ""},
		{"{{cfg}} }}{{", "{cfg} }{", ""},
		{"${{ cfg }}:${{ports[1]}}", "/tmp/x.py:8081", ""},
		{"${{HOME}}/x ${{A:-b}}", "${HOME}/x ${A:-b}", ""},
		{"${cfg}", "$/tmp/x.py", ""},
		{"${{ nothing }}", "", `no variable "nothing"`},
		{"{nothing}", "", `no variable "nothing"`},
		{"{}", "", "no variable"},
		{"{ports[2]}", "", "no item"},
		{"{ports[-1]}", "", "no item"},
		{"{ports[0}", "", "form"},
		{"{out}", "", "has parts"},
		{"{out[exit]}", "", "no part"},
		{"{cfg.__class__}", "", "no variable"},
		{"{cfg!r}", "", "no variable"},
		{"{cfg", "", "no end"},
		{"cfg}", "", "no beginning"},
	} {
		got, err := v.Expand(c.template)
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%q: %q, error %v, want one with %q", c.template, got, err, c.fault)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.template, got, err, c.want)
		}
	}
	v["big"] = service.Text(strings.Repeat("x", 1<<20))
	if _, err := v.Expand(strings.Repeat("{big}", 1000)); err == nil {
		t.Error("a text of 1 GiB was expanded")
	}
}

const full = `{
	"command": ["{runtime_path}", "-p", "{ports[0]}"],
	"prestart": [
		{"action": "write_tempfile", "args": {"body": ["a={ports[0]}\n", "b=1"], "mode": "600"}, "ref": "cfg"},
		{"action": "write_file", "args": {"filename": "/tmp/{ports[0]}", "body": ["x"], "append": true}},
		{"action": "mkdir", "args": {"path": "/tmp/d"}},
		{"action": "run_command", "args": {"command": ["echo", "{{}}"], "echo": true}, "ref": "out"},
		{"action": "log", "args": {"message": "hi", "debug": true}}
	],
	"env": {"A_{ports[0]}": "v{ports[1]}"},
	"url_template": "{protocol}://{host}:{port}/",
	"allowed_envs": ["TOKEN", "HOME"],
	"allowed_arguments": ["--dir", "--flag", "--new"],
	"default_arguments": {"--zeta": null, "--dir": "/home/work", "--list": ["a", "b"]}
}`

func TestParseDefinition(t *testing.T) {
	d, err := service.ParseDefinition([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := service.Definition{
		Command: []string{"{runtime_path}", "-p", "{ports[0]}"},
		Prestart: []service.Action{
			{Kind: service.ActionWriteTempfile, Ref: "cfg", Body: []string{"a={ports[0]}\n", "b=1"}, Mode: 0o600},
			{Kind: service.ActionWriteFile, Filename: "/tmp/{ports[0]}", Body: []string{"x"}, Mode: 0o644, Append: true},
			{Kind: service.ActionMkdir, Path: "/tmp/d"},
			{Kind: service.ActionRunCommand, Ref: "out", Command: []string{"echo", "{{}}"}, Echo: true},
			{Kind: service.ActionLog, Message: "hi", Debug: true},
		},
		Env:              map[string]string{"A_{ports[0]}": "v{ports[1]}"},
		URLTemplate:      "{protocol}://{host}:{port}/",
		AllowedEnvs:      []string{"TOKEN", "HOME"},
		AllowedArguments: []string{"--dir", "--flag", "--new"},
		DefaultArguments: []service.Argument{
			{Name: "--zeta"}, {Name: "--dir", Values: []string{"/home/work"}}, {Name: "--list", Values: []string{"a", "b"}},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}

func TestParseDefinitionFaults(t *testing.T) {
	for text, fault := range map[string]string{
		`{}`:                                "no command",
		`{"comand": ["x"]}`:                 "comand",
		`{"command": ["x"]} {}`:             "follows",
		`[]`:                                "array",
		`{"command": 5}`:                    "neither",
		`{"command": "x", "shell": 3}`:      "shell",
		`{"command": "'x", "shell": null}`:  "quote",
		`{"command": "x\\", "shell": null}`: "backslash",
		`{"command": ["x"], "prestart": [{"action": "eval", "args": {}}]}`:                                                  "no action",
		`{"command": ["x"], "prestart": [{"action": "mkdir", "args": {"paht": "x"}}]}`:                                      "paht",
		`{"command": ["x"], "prestart": [{"action": "mkdir", "args": {}}]}`:                                                 "no path",
		`{"command": ["x"], "prestart": [{"action": "run_command"}]}`:                                                       "no command",
		`{"command": ["x"], "prestart": [{"action": "write_file", "args": {"body": []}}]}`:                                  "no filename",
		`{"command": ["x"], "prestart": [{"action": "write_file", "args": {"filename": "x", "body": [], "mode": "4755"}}]}`: "mode",
		`{"command": ["x"], "default_arguments": []}`:                                                                       "not an object",
		`{"command": ["x"], "default_arguments": {"a": 1}}`:                                                                 "neither",
		`{"command": ["x"], "default_arguments": {"a": null, "a": "b"}}`:                                                    "twice",
		`{"command": ["x"], "env": {"A": 1}}`:                                                                               "env",
		strings.Repeat(" ", service.MaxDefinition+1):                                                                        "limit",
	} {
		if _, err := service.ParseDefinition([]byte(text)); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%.80s: error %v, want one with %q", text, err, fault)
		}
	}
}

func TestCommandForms(t *testing.T) {
	for text, want := range map[string][]string{
		`{"command": "a b"}`:                                       {"bash", "-c", "a b"},
		`{"command": "a b", "shell": "ash"}`:                       {"ash", "-c", "a b"},
		`{"command": "a 'b c' \"d\\\"\" e\\ f ''", "shell": null}`: {"a", "b c", `d"`, "e f", ""},
		`{"command": ["a b"], "shell": null}`:                      {"a b"},
		`{"noop": true}`:                                           nil,
	} {
		d, err := service.ParseDefinition([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, d.Command); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestInvocation(t *testing.T) {
	d, err := service.ParseDefinition([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	v := service.NewVariables([]int{8080, 8081}, "/usr/bin/python3", "127.0.0.1")
	argv, env, err := d.Invocation(v, service.Request{
		Arguments: map[string][]string{"--dir": {"/x"}, "--flag": nil, "--new": {"1", "2"}},
		Envs:      map[string]string{"TOKEN": "{not a template}"},
	}, func(name string) bool { return name == "HOME" })
	if err != nil {
		t.Fatal(err)
	}
	wantArgs := []string{
		"/usr/bin/python3", "-p", "8080", "--zeta", "--dir", "/x", "--list", "a", "b", "--flag", "--new", "1", "2",
	}
	if diff := cmp.Diff(wantArgs, argv); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"A_8080": "v8081", "TOKEN": "{not a template}"}, env); diff != "" {
		t.Error(diff)
	}
	// Asking again without arguments must see the defaults untouched.
	if argv, _, _ = d.Invocation(v, service.Request{}, nil); argv[5] != "/home/work" {
		t.Errorf("a user's argument stayed in the definition: %q", argv)
	}
	for _, c := range []struct {
		req   service.Request
		fault string
	}{
		{service.Request{Arguments: map[string][]string{"--evil": nil}}, "does not take the argument"},
		{service.Request{Envs: map[string]string{"LD_PRELOAD": "x"}}, "does not take the environment"},
		{service.Request{Envs: map[string]string{"HOME": "x"}}, "already set"},
	} {
		_, _, err := d.Invocation(v, c.req, func(name string) bool { return name == "HOME" })
		if err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%v: error %v, want one with %q", c.req, err, c.fault)
		}
	}
}

func TestActionExpand(t *testing.T) {
	d, err := service.ParseDefinition([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	v := service.NewVariables([]int{8080}, "", "127.0.0.1")
	for i, want := range []service.Action{
		{Kind: service.ActionWriteTempfile, Ref: "cfg", Body: []string{"a=8080\n", "b=1\n"}, Mode: 0o600, Command: []string{}},
		{Kind: service.ActionWriteFile, Filename: "/tmp/8080", Body: []string{"x\n"}, Mode: 0o644, Append: true, Command: []string{}},
		{Kind: service.ActionMkdir, Path: "/tmp/d", Command: []string{}, Body: []string{}},
		{Kind: service.ActionRunCommand, Ref: "out", Command: []string{"echo", "{}"}, Echo: true, Body: []string{}},
	} {
		got, err := d.Prestart[i].Expand(v)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := (service.Action{Kind: service.ActionLog, Message: "{x}"}).Expand(v); err == nil {
		t.Error("an action with an unknown variable expanded")
	}
}

func TestDetect(t *testing.T) {
	has := func(programs ...string) func(string) (string, error) {
		return func(p string) (string, error) {
			for _, have := range programs {
				if p == have {
					return "/usr/bin/" + p, nil
				}
			}
			return "", errors.New("not in PATH")
		}
	}
	names := func(known []service.Known) []string {
		var out []string
		for _, k := range known {
			out = append(out, k.App.Name)
		}
		return out
	}
	if got := names(service.Detect(has("jupyter-notebook", "tensorboard"), nil)); !cmp.Equal(got, []string{"jupyter", "tensorboard"}) {
		t.Errorf("Detect = %q", got)
	}
	taken := []backendai.App{{Name: "mine", Ports: []int{8080}}, {Name: "tensorboard", Ports: []int{9999}}}
	if got := service.Detect(has("jupyter-notebook", "tensorboard"), taken); len(got) != 0 {
		t.Errorf("Detect with those names and ports taken = %q", names(got))
	}
}

// Every built-in definition must expand with what the runner gives it.
func TestBuiltinsExpand(t *testing.T) {
	for _, k := range service.Detect(func(p string) (string, error) { return p, nil }, nil) {
		v := service.NewVariables(k.App.Ports, "", "127.0.0.1")
		for _, a := range k.Definition.Prestart {
			if _, err := a.Expand(v); err != nil {
				t.Errorf("%s: %v", k.App.Name, err)
			}
			v[a.Ref] = service.Text("/tmp/cfg" + service.TempfileSuffix)
		}
		argv, _, err := k.Definition.Invocation(v, service.Request{}, nil)
		if err != nil || len(argv) == 0 || argv[0] != k.Program {
			t.Errorf("%s: %q, %v", k.App.Name, argv, err)
		}
		if _, err := service.ParseServicePorts(service.FormatServicePorts([]backendai.App{k.App})); err != nil {
			t.Errorf("%s: %v", k.App.Name, err)
		}
	}
}
