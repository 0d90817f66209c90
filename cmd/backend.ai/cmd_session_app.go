package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/anmitsu/go-shlex"
	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

const appHelp = `Opens an address on this machine that leads to an app inside the session, and keeps it open until Ctrl+C. The app is started when the first connection comes. The way goes through the server, signed with your key: the app itself is reachable from nowhere else.

For web apps the address that is shown can be opened in a browser. Any number of connections may be open at once. A server that restarts meanwhile ends the connections that are open; new ones wait a few seconds for it.`

// newAppCommand is "app".
func newAppCommand(e *env, name string) *cobra.Command {
	var bind string
	var texts, envs []string
	cmd := &cobra.Command{
		Use: name + " SESSION APP", Short: "Reach an app of a session from this machine", Long: appHelp, Args: arguments("SESSION", "APP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := client.ConnectRequest{App: args[1]}
			if err := readPairs("-e", envs, &request.Envs); err != nil {
				return usageError{err}
			}
			var err error
			if request.Arguments, err = parseArguments(texts); err != nil {
				return usageError{err}
			}
			address, err := parseBind(bind)
			if err != nil {
				return err
			}
			return e.app(cmd.Context(), args[0], address, request)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&bind, "bind", "b", "127.0.0.1:8080", "listen on `[HOST:]PORT`; without HOST on the loopback addresses of IPv4 and IPv6; port 0 takes a free one")
	f.StringArrayVar(&texts, "arg", nil, "start the app with the `ARGUMENT`, such as '\"--option value\"'; which are allowed is shown by 'backend.ai apps'")
	f.StringArrayVarP(&envs, "env", "e", nil, "start the app with the environment variable `NAME=VALUE`")
	return document(cmd, manual{
		arguments: [][2]string{
			{"SESSION", "name or id of the session, or how one of them begins"},
			{"APP", "name of the app as 'backend.ai apps' lists it, or the number of a port inside the session"},
		},
		examples: [][2]string{
			{"Jupyter at http://127.0.0.1:9900", "backend.ai app -b 9900 mysession jupyter"},
			{"Whatever listens on port 8000 inside, at any free port here", "backend.ai app -b 0 mysession 8000"},
			{"SSH with any client", "backend.ai app mysession sshd -b 9922"},
		},
	})
}

// bindAddress is where to listen; an empty host is both loopback addresses.
type bindAddress struct {
	host string
	port int
}

func parseBind(text string) (bindAddress, error) {
	host, number := "", text
	if i := strings.LastIndex(text, ":"); i >= 0 {
		host, number = strings.Trim(text[:i], "[]"), text[i+1:]
	}
	port, err := strconv.Atoi(number)
	if err != nil || port < 0 || port > 65535 {
		return bindAddress{}, backendai.Errorf(backendai.CodeInvalidParams, "-b %s: %q is not a port", text, number).
			WithHint("write a port from 1 to 65535, 0 for a free one, or HOST:PORT")
	}
	if host == "localhost" || host == "127.0.0.1" {
		host = ""
	}
	return bindAddress{host, port}, nil
}

// parseArguments reads texts such as "--option value" or "--flag --list a b".
func parseArguments(texts []string) (map[string][]string, error) {
	arguments := map[string][]string{}
	for _, text := range texts {
		words, err := shlex.Split(text, true)
		if err != nil {
			return nil, fmt.Errorf("--arg %s: %w", text, err)
		}
		name := ""
		for _, word := range words {
			if strings.HasPrefix(word, "-") {
				var value string
				var found bool
				if name, value, found = strings.Cut(word, "="); found {
					arguments[name] = append(arguments[name], value)
				} else if _, known := arguments[name]; !known {
					arguments[name] = nil
				}
				continue
			}
			if name == "" {
				return nil, fmt.Errorf("--arg %s: %q stands before any option; write --arg '\"--option %s\"'", text, word, word)
			}
			arguments[name] = append(arguments[name], word)
		}
	}
	return arguments, nil
}

// app listens and forwards until ctx ends.
func (e *env) app(ctx context.Context, session string, at bindAddress, request client.ConnectRequest) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	apps, err := c.Apps(ctx, session)
	if err != nil {
		return err
	}
	app, err := findApp(apps, session, request.App)
	if err != nil {
		return err
	}
	listeners, port, err := listenAt(ctx, at)
	if err != nil {
		return err
	}
	f := &forwarder{
		what: fmt.Sprintf("the app %q of session %q", app.Name, session), speaksHTTP: app.Protocol != backendai.ProtocolTCP,
		dial: func(ctx context.Context) (net.Conn, error) { return c.Connect(ctx, session, request) },
		tell: e.term,
	}
	e.term.Info("%s is at\n%s\nPress Ctrl+C to end it.", strings.ToUpper(f.what[:1])+f.what[1:], appURL(app, at.host, port))
	if at.host == "0.0.0.0" || at.host == "::" {
		e.term.Warn("Everyone who can reach this machine can use the app: it listens on all addresses.")
	}
	err = f.run(ctx, listeners)
	e.term.Info("The way to %s is closed.", f.what)
	return err
}

// findApp looks an app up by name; a number stands for a port.
func findApp(apps []backendai.App, session, name string) (backendai.App, error) {
	for _, a := range apps {
		if a.Name == name {
			return a, nil
		}
	}
	if port, err := strconv.Atoi(name); err == nil && port > 0 && port <= 65535 {
		// What listens there is not known; that it may be a web app is the best guess.
		return backendai.App{Name: name, Protocol: backendai.ProtocolPreopen, Ports: []int{port}}, nil
	}
	return backendai.App{}, noApp(apps, session, name)
}

func noApp(apps []backendai.App, session, name string) error {
	names := make([]string, len(apps))
	for i, a := range apps {
		names[i] = a.Name
	}
	slices.Sort(names)
	return backendai.Errorf(backendai.CodeNotFound, "session %q has no app %q", session, name).
		WithHint("its apps are: %s; the number of a port works too", strings.Join(names, ", "))
}

// appURL is the address to show: one that a browser can open for web apps.
func appURL(app backendai.App, host string, port int) string {
	switch host {
	case "", "0.0.0.0", "::":
		host = "127.0.0.1"
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	protocol := string(app.Protocol)
	if app.Protocol == backendai.ProtocolPreopen {
		protocol = string(backendai.ProtocolHTTP)
	}
	template := app.URLTemplate
	if template == "" {
		template = "{protocol}://{host}:{port}"
	}
	return strings.NewReplacer("{protocol}", protocol, "{host}", host, "{port}", strconv.Itoa(port)).Replace(template)
}
