package session

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"backendai"
	"backendai/internal/image/service"
)

// The bounds of what users may ask for; sizes are bytes.
const (
	maxTag          = 256
	maxBootstrap    = 64 << 10
	maxStartup      = 64 << 10
	maxEnviron      = 256 << 10 // names and values together
	maxVariables    = 1024
	maxPreopen      = 64
	maxDependencies = 64
	maxPriority     = 100
)

// architectures are the protocol's names of what others call otherwise.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// machine is the architecture of this one.
func machine() string {
	if name, ok := architectures[runtime.GOARCH]; ok {
		return name
	}
	return runtime.GOARCH
}

// runnable refuses an image that is made for another machine.
func runnable(image backendai.Image) error {
	if image.Architecture == "" || image.Architecture == machine() {
		return nil
	}
	return backendai.Errorf(backendai.CodeInvalidParams, "image %q is for %s, but this machine is %s", image.Ref, image.Architecture, machine()).
		WithHint("pull or build the image for %s", machine()).
		WithData(map[string]string{"architecture": "is not that of this machine"})
}

// faults collects what is wrong with a request, by the names of the protocol.
type faults struct {
	texts map[string]string
	hint  string
}

func (f *faults) add(field, format string, args ...any) {
	if f.texts == nil {
		f.texts = map[string]string{}
	}
	if f.texts[field] == "" {
		f.texts[field] = fmt.Sprintf(format, args...)
	}
}

// hinted is add with a hint what to do, which shows when nothing else is wrong.
func (f *faults) hinted(hint, field, format string, args ...any) {
	f.add(field, format, args...)
	f.hint = hint
}

// err tells all of it at once.
func (f *faults) err() error {
	if len(f.texts) == 0 {
		return nil
	}
	fields := slices.Sorted(maps.Keys(f.texts))
	title := "invalid " + fields[0] + ": " + f.texts[fields[0]]
	if len(fields) > 1 {
		title = "invalid parameters: " + strings.Join(fields, ", ")
	}
	e := backendai.Errorf(backendai.CodeInvalidParams, "%s", title).WithData(f.texts)
	if len(fields) == 1 {
		e.Hint = f.hint
	}
	return e
}

// checkRequest checks all but resources, mounts and dependencies.
func (f *faults) checkRequest(caller backendai.Caller, req CreateRequest, image backendai.Image) {
	f.checkKind(req)
	if req.Domain != "" && req.Domain != caller.User.Domain {
		f.add("domain", "you do not belong to the domain %q", req.Domain)
	}
	if req.Group != "" && req.Group != caller.User.Group {
		f.add("group", "you do not belong to the group %q", req.Group)
	}
	if len(req.Tag) > maxTag || !utf8.ValidString(req.Tag) || strings.ContainsFunc(req.Tag, unicode.IsControl) {
		f.add("tag", "is not one line of at most %d bytes", maxTag)
	}
	if req.Priority < 0 || req.Priority > maxPriority {
		f.add("priority", "%d is not between 0 and %d", req.Priority, maxPriority)
	}
	if req.ClusterSize < 0 || req.ClusterSize > 1 {
		f.hinted("leave it out: a session is one container", "cluster_size", "sessions of %d containers are not supported", req.ClusterSize)
	}
	if req.MaxWait < 0 {
		f.add("max_wait_seconds", "is less than zero")
	}
	f.checkScript("bootstrap_script", req.Bootstrap, maxBootstrap)
	f.checkScript("startup_command", req.Startup, maxStartup)
	if req.CallbackURL != "" {
		if err := checkCallback(req.CallbackURL); err != nil {
			f.add("callback_url", "%v", err)
		}
	}
	f.checkEnviron(req.Environ)
	f.checkPreopen(req.PreopenPorts, image)
}

// checkKind checks the type of the session and what goes with it.
func (f *faults) checkKind(req CreateRequest) {
	switch req.Type {
	case backendai.Batch:
		if strings.TrimSpace(req.Startup) == "" {
			f.add("startup_command", "is required for a batch session")
		}
		if req.BatchTimeout < 0 {
			f.add("batch_timeout", "is less than zero")
		}
	case backendai.Interactive:
		const only = "is for batch sessions only"
		if req.Startup != "" {
			f.add("startup_command", only)
		}
		if req.BatchTimeout != 0 {
			f.add("batch_timeout", only)
		}
		if !req.StartsAt.IsZero() {
			f.add("starts_at", only)
		}
	default:
		f.hinted("the types are interactive and batch", "type", "sessions of type %q are not supported", req.Type)
	}
}

func (f *faults) checkScript(field, text string, limit int) {
	if len(text) > limit {
		f.add(field, "is longer than %s", backendai.FormatSize(int64(limit)))
	} else if strings.ContainsRune(text, 0) {
		f.add(field, "is not a text")
	}
}

func (f *faults) checkEnviron(environ map[string]string) {
	size := 0
	for _, name := range slices.Sorted(maps.Keys(environ)) {
		value := environ[name]
		size += len(name) + len(value) + 2
		switch {
		case !backendai.ValidEnvName(name):
			f.add("environ", "%q is not the name of an environment variable", name)
		case strings.ContainsRune(value, 0):
			f.add("environ", "the value of %s is not a text", name)
		case platformOwned(name):
			f.add("environ", "%s is set by the platform", name)
		}
	}
	if size > maxEnviron || len(environ) > maxVariables {
		f.add("environ", "has more than %d variables or %s", maxVariables, backendai.FormatSize(maxEnviron))
	}
}

func (f *faults) checkPreopen(ports []int, image backendai.Image) {
	if len(ports) > maxPreopen {
		f.add("preopen_ports", "are more than %d", maxPreopen)
	}
	services := servicePorts(image)
	seen := map[int]bool{}
	for _, port := range ports {
		switch app := services[port]; {
		case port < 1024 || port > 65535:
			f.add("preopen_ports", "%d is not between 1024 and 65535", port)
		case slices.Contains(backendai.ReservedPorts(), port):
			f.add("preopen_ports", "%d is reserved", port)
		case seen[port]:
			f.add("preopen_ports", "%d is there twice", port)
		case app != "":
			f.add("preopen_ports", "%d is the port of the image's app %q", port, app)
		}
		seen[port] = true
	}
}

// servicePorts are the ports of an image's services. A faulty label has none, as
// in the session itself.
func servicePorts(image backendai.Image) map[int]string {
	ports := map[int]string{}
	for _, app := range imageApps(image) {
		for _, p := range app.Ports {
			ports[p] = app.Name
		}
	}
	return ports
}

func imageApps(image backendai.Image) []backendai.App {
	apps, err := service.ParseServicePorts(image.Labels[service.LabelServicePorts])
	if err != nil {
		return nil
	}
	return apps
}

func joinPorts(ports []int, separator string) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = strconv.Itoa(p)
	}
	return strings.Join(texts, separator)
}
