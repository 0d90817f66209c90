package service

import (
	"slices"

	"backendai"
)

// Known is a well-known app that is there when its program is in PATH.
type Known struct {
	App        backendai.App
	Program    string
	Definition Definition
}

// Builtin gives the definition of a well-known app, for images whose label
// names the app but that bring no file for it, and for those that say nothing.
// A file in the image always wins over it.
func Builtin(name string) (Definition, bool) {
	for _, k := range knownApps() {
		if k.App.Name == name {
			return k.Definition, true
		}
	}
	return Definition{}, false
}

// Detect lists the well-known apps whose programs lookPath finds (exec.LookPath
// on the session's PATH), leaving out those whose name or port is taken.
func Detect(lookPath func(program string) (string, error), taken []backendai.App) []Known {
	var found []Known
	for _, k := range knownApps() {
		busy := slices.ContainsFunc(taken, func(a backendai.App) bool {
			return a.Name == k.App.Name || slices.Contains(a.Ports, k.App.Ports[0])
		})
		if busy {
			continue
		}
		if _, err := lookPath(k.Program); err == nil {
			found = append(found, k)
		}
	}
	return found
}

func knownApps() []Known {
	web := func(name string, port int) backendai.App {
		return backendai.App{Name: name, Protocol: backendai.ProtocolHTTP, Ports: []int{port}}
	}
	return []Known{
		{App: web("jupyter", 8080), Program: "jupyter-notebook", Definition: jupyter("jupyter-notebook")},
		{App: web("jupyterlab", 8090), Program: "jupyter-lab", Definition: jupyter("jupyter-lab")},
		{App: web("vscode", 8180), Program: "code-server", Definition: Definition{
			Command: []string{
				"code-server", "--auth", "none", "--bind-addr", "{loopback}:{ports[0]}",
				"--disable-telemetry", "--disable-update-check", "/home/work",
			},
		}},
		{App: web("tensorboard", 6006), Program: "tensorboard", Definition: Definition{
			Command:          []string{"tensorboard", "--host", "{loopback}", "--port", "{ports[0]}"},
			AllowedArguments: []string{"--logdir"},
			DefaultArguments: []Argument{{Name: "--logdir", Values: []string{"/home/work/logs"}}},
		}},
		{App: web("mlflow-ui", 5000), Program: "mlflow", Definition: Definition{
			Command:          []string{"mlflow", "ui", "--host", "{loopback}", "--port", "{ports[0]}"},
			AllowedArguments: []string{"--backend-store-uri"},
		}},
		{App: web("rstudio", 8787), Program: "rserver", Definition: Definition{
			Command: []string{
				"rserver", "--server-daemonize=0", "--auth-none=1", "--server-user=work",
				"--www-address={loopback}", "--www-port={ports[0]}",
				"--server-data-dir=/tmp/rserver", "--database-config-file=/dev/null",
			},
		}},
	}
}

// jupyter starts Notebook 6 or 7, or Lab. The settings stand in a file under the
// names that each generation knows them by, since a class that a program does
// not have is ignored there. There is neither token nor password: only the
// session's owner has a way to the port. Remote access and foreign origins stay
// refused, because without a token they would let any page that the user's
// browser visits (by rebinding a name to the tunnel's local end) run code;
// localhost, 127.0.0.1 and the page's own origin need neither.
func jupyter(program string) Definition {
	var lines []string
	for _, class := range []string{"NotebookApp", "ServerApp"} {
		for _, setting := range []string{
			"ip = '{loopback}'", "port = {ports[0]}", "port_retries = 0", "open_browser = False",
			"token = ''", "password = ''", "password_required = False", "allow_root = True", "quit_button = False",
		} {
			lines = append(lines, "c."+class+"."+setting)
		}
	}
	lines = append(lines, "c.NotebookApp.notebook_dir = '/home/work'", "c.ServerApp.root_dir = '/home/work'",
		"c.IdentityProvider.token = ''", "c.PasswordIdentityProvider.hashed_password = ''")
	return Definition{
		Prestart: []Action{{Kind: ActionWriteTempfile, Ref: "cfg", Body: lines, Mode: 0o600}},
		Command:  []string{program, "--no-browser", "--config", "{cfg}"},
		AllowedArguments: []string{
			"--NotebookApp.allow_remote_access=True", "--NotebookApp.token", "--NotebookApp.base_url",
			"--ServerApp.allow_remote_access=True", "--IdentityProvider.token", "--ServerApp.base_url",
		},
	}
}
