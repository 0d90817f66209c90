// Package service reads what an image says about its services: the
// service-ports label and the definition files below
// /etc/backend.ai/service-defs, with their templates, arguments and actions
// (API sections 11 and 12). It also knows how to start the well-known apps that
// an image has without saying so.
//
// It is pure: it parses and expands, the runner carries out. The server and the
// small runner binary both use it, so it imports nothing but the vocabulary.
package service

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"backendai"
)

// DefinitionDir is where an image keeps its definitions, one <service>.json each.
const DefinitionDir = "/etc/backend.ai/service-defs"

// The image labels of API section 11 that start-up reads.
const (
	LabelServicePorts = "ai.backend.service-ports"
	LabelRuntimePath  = "ai.backend.runtime-path"
	LabelRuntimeType  = "ai.backend.runtime-type"
	LabelFeatures     = "ai.backend.features"
	LabelCoreCount    = "ai.backend.envs.corecount"
	LabelMinPrefix    = "ai.backend.resource.min."
	LabelMaxPrefix    = "ai.backend.resource.max."
)

// DefaultRuntimePath stands for {runtime_path} where an image has no label for it.
const DefaultRuntimePath = "/bin/true"

// maxLabel bounds a service-ports label in bytes; it is a stranger's word.
const maxLabel = 64 << 10

// protocolPTY is of the first protocol version: read and skipped.
const protocolPTY = "pty"

var nameRE = regexp.MustCompile(`^[\w-]+$`)

// ParseServicePorts reads the service-ports label: a comma list of
// name:protocol:port or name:protocol:[port,port], the first port being the
// primary one. An empty label has no services. Ports are above 1024 and below
// 65535, none twice and none of backendai.ReservedPorts; every fault is an
// error that names the entry.
func ParseServicePorts(label string) ([]backendai.App, error) {
	if len(label) > maxLabel {
		return nil, fmt.Errorf("read service ports: %d bytes are more than the limit of %d", len(label), maxLabel)
	}
	if strings.TrimSpace(label) == "" {
		return nil, nil
	}
	var apps []backendai.App
	names := map[string]bool{}
	taken := map[int]bool{}
	for entry := range splitOutsideBrackets(label) {
		app, err := parseEntry(strings.TrimSpace(entry), taken)
		if err != nil {
			return nil, fmt.Errorf("read service port %q: %w", entry, err)
		}
		if app.Protocol == protocolPTY {
			continue
		}
		if names[app.Name] {
			return nil, fmt.Errorf("read service port %q: the name is there twice", entry)
		}
		names[app.Name] = true
		apps = append(apps, app)
	}
	return apps, nil
}

// splitOutsideBrackets yields the parts between commas that are not in [ ].
func splitOutsideBrackets(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start, inside := 0, false
		for i := range len(s) {
			switch s[i] {
			case '[':
				inside = true
			case ']':
				inside = false
			case ',':
				if inside {
					continue
				}
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}

func parseEntry(entry string, taken map[int]bool) (backendai.App, error) {
	parts := strings.SplitN(entry, ":", 3)
	if len(parts) != 3 {
		return backendai.App{}, fmt.Errorf("it is not of the form name:protocol:port")
	}
	app := backendai.App{Name: parts[0], Protocol: backendai.Protocol(parts[1])}
	if !nameRE.MatchString(app.Name) {
		return app, fmt.Errorf("%q is not a name of letters, digits, _ and -", app.Name)
	}
	if app.Name == backendai.AppSSHD || app.Name == backendai.AppTTYD {
		return app, fmt.Errorf("%s is built into every session", app.Name)
	}
	known := []backendai.Protocol{
		backendai.ProtocolTCP, backendai.ProtocolHTTP, backendai.ProtocolPreopen,
		backendai.ProtocolVNC, backendai.ProtocolRDP, protocolPTY,
	}
	if !slices.Contains(known, app.Protocol) {
		return app, fmt.Errorf("%q is not one of the protocols tcp, http, preopen, vnc and rdp", parts[1])
	}
	list := strings.TrimSpace(parts[2])
	if inner, ok := strings.CutPrefix(list, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return app, fmt.Errorf("the list of ports has no end")
		}
		list = inner
	} else if strings.Contains(list, ",") {
		return app, fmt.Errorf("several ports stand in brackets: [port,port]")
	}
	for text := range strings.SplitSeq(list, ",") {
		port, err := ParsePort(strings.TrimSpace(text))
		if err != nil {
			return app, err
		}
		if taken[port] {
			return app, fmt.Errorf("port %d is there twice", port)
		}
		taken[port] = true
		app.Ports = append(app.Ports, port)
	}
	return app, nil
}

// ParsePort reads the number of a service or preopen port: above 1024, below
// 65535 and not one of backendai.ReservedPorts.
func ParsePort(text string) (int, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a port number", text)
	}
	if port <= 1024 || port >= 65535 {
		return 0, fmt.Errorf("port %d is not between 1025 and 65534", port)
	}
	if slices.Contains(backendai.ReservedPorts(), int(port)) {
		return 0, fmt.Errorf("port %d is reserved", port)
	}
	return int(port), nil
}

// FormatServicePorts is the inverse of ParseServicePorts.
func FormatServicePorts(apps []backendai.App) string {
	var b strings.Builder
	for i, app := range apps {
		if i > 0 {
			b.WriteByte(',')
		}
		ports := make([]string, len(app.Ports))
		for j, p := range app.Ports {
			ports[j] = strconv.Itoa(p)
		}
		list := strings.Join(ports, ",")
		if len(ports) != 1 {
			list = "[" + list + "]"
		}
		fmt.Fprintf(&b, "%s:%s:%s", app.Name, app.Protocol, list)
	}
	return b.String()
}
