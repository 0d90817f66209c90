// Package config is the settings of the server and where each came from. A
// flag wins over the environment, which wins over the TOML file, which wins
// over the default.
//
//	listen = "127.0.0.1:8090"
//	state-dir = "/var/lib/backend.ai"
//
//	[public-images]
//	python = "docker.io/jupyter/minimal-notebook:latest"
//
// The environment variable of a key is BACKEND_SERVER_ and the key in upper
// case with underscores: BACKEND_SERVER_STATE_DIR.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"backendai"
)

// EnvPrefix begins the names of the environment variables.
const EnvPrefix = "BACKEND_SERVER_"

// The values of the key "engine".
const (
	EngineOCI  = "oci"
	EngineFake = "fake"
)

// The values of the key "network".
const (
	NetworkNAT  = "nat"
	NetworkNone = "none"
)

// Config is the settings of a server. The zero value of a field that has no
// default means: detect, or none.
type Config struct {
	StateDir           string            // database, images and what sessions keep
	RunDir             string            // what the engine forgets at a reboot; "" is its own choice
	Listen             string            // host:port
	TLSCert, TLSKey    string            // PEM files; both or none
	Engine             string            // EngineOCI or EngineFake
	Runtime            string            // name or path of the OCI runtime
	Network            string            // NetworkNAT or NetworkNone
	CPU                string            // cores for sessions
	Mem                string            // memory for sessions
	PublicImages       map[string]string // short name → reference that a registry has
	InsecureRegistries []string          // hosts that are spoken to without TLS
	LogLevel           string            // debug, info, warn or error
	LogFormat          string            // text or json
	LogRetention       string            // how long the logs of ended sessions are kept: 30d
	StorageHosts       map[string]string // directories of folders by the names of their hosts
	DefaultHost        string            // the storage host of folders for which nobody names one
	FolderQuota        string            // most bytes of one folder
	UserQuota          string            // most bytes of all folders of one user
	MaxFolders         string            // most folders of one user
	TrashRetention     string            // how long deleted folders can be restored
	TrustedProxies     []string          // addresses and networks of proxies that tell where clients came from

	origins map[string]string // by key
}

// Key is one setting: its name in the file and as a flag, what it is for, and
// the field that it sets.
type Key struct {
	Name  string
	Usage string // with the name of the value in backquotes, as flags want it

	def   func() string
	field func(*Config) *string
	list  func(*Config) *[]string
	table func(*Config) *map[string]string
}

func fixed(value string) func() string { return func() string { return value } }

// Keys lists every setting in the order in which they are shown.
func Keys() []Key {
	return []Key{
		{Name: "state-dir", Usage: "`DIR` of the database, the images and what sessions keep", def: stateDir, field: func(c *Config) *string { return &c.StateDir }},
		{Name: "run-dir", Usage: "`DIR` of what the engine forgets at a reboot (default: one of its own below /run)", def: fixed(""), field: func(c *Config) *string { return &c.RunDir }},
		{Name: "listen", Usage: "`HOST:PORT` of the API", def: fixed("127.0.0.1:8090"), field: func(c *Config) *string { return &c.Listen }},
		{Name: "tls-cert", Usage: "PEM `FILE` of the certificate chain; with tls-key the API is served over TLS", def: fixed(""), field: func(c *Config) *string { return &c.TLSCert }},
		{Name: "tls-key", Usage: "PEM `FILE` of the certificate's private key", def: fixed(""), field: func(c *Config) *string { return &c.TLSKey }},
		{Name: "engine", Usage: "`ENGINE` that runs sessions: oci, or fake (plain processes without isolation, for trying the API)", def: fixed(EngineOCI), field: func(c *Config) *string { return &c.Engine }},
		{Name: "runtime", Usage: "`NAME` or path of the OCI runtime (default: crun, else runc)", def: fixed(""), field: func(c *Config) *string { return &c.Runtime }},
		{Name: "network", Usage: "`KIND` of network of the sessions: nat (a way to the outside), or none", def: fixed(NetworkNAT), field: func(c *Config) *string { return &c.Network }},
		{Name: "cpu", Usage: "`CORES` that sessions may have together (default: all of the machine)", def: fixed(""), field: func(c *Config) *string { return &c.CPU }},
		{Name: "mem", Usage: "`SIZE` of the memory that sessions may have together, such as 16g (default: what the machine has)", def: fixed(""), field: func(c *Config) *string { return &c.Mem }},
		{Name: "public-images", Usage: "`NAME=REFERENCE,…`: short names of images in public registries", def: fixed(""), table: func(c *Config) *map[string]string { return &c.PublicImages }},
		{Name: "insecure-registries", Usage: "`HOST,…`: registries that are spoken to without TLS", def: fixed(""), list: func(c *Config) *[]string { return &c.InsecureRegistries }},
		{Name: "log-level", Usage: "`LEVEL` from which on the server logs: debug, info, warn or error", def: fixed("info"), field: func(c *Config) *string { return &c.LogLevel }},
		{Name: "log-format", Usage: "`FORM` of the server's log: text or json", def: fixed("text"), field: func(c *Config) *string { return &c.LogFormat }},
		{Name: "log-retention", Usage: "`TIME` for which the logs of ended sessions are kept, such as 12h or 30d", def: fixed("30d"), field: func(c *Config) *string { return &c.LogRetention }},
		{Name: "storage-hosts", Usage: "`NAME=DIR,…`: directories in which folders are kept, on any POSIX file system (local:default is in the state directory unless it is named)", def: fixed(""), table: func(c *Config) *map[string]string { return &c.StorageHosts }},
		{Name: "default-storage-host", Usage: "`NAME` of the storage host of folders for which nobody names one", def: fixed(LocalHost), field: func(c *Config) *string { return &c.DefaultHost }},
		{Name: "folder-quota", Usage: "`SIZE` that one folder may hold, such as 100g: uploads that do not fit are refused; what sessions write counts too, and is refused where the file system has project quotas (default: no limit)", def: fixed(""), field: func(c *Config) *string { return &c.FolderQuota }},
		{Name: "user-quota", Usage: "`SIZE` that all folders of one user may hold together, such as 1t: uploads that do not fit are refused; what sessions write counts as for folder-quota (default: no limit)", def: fixed(""), field: func(c *Config) *string { return &c.UserQuota }},
		{Name: "max-folders", Usage: "`NUMBER` of folders that one user may own (default: no limit)", def: fixed(""), field: func(c *Config) *string { return &c.MaxFolders }},
		{Name: "trash-retention", Usage: "`TIME` for which deleted folders can be restored, such as 12h or 30d; 0d keeps them", def: fixed("30d"), field: func(c *Config) *string { return &c.TrashRetention }},
		{Name: "trusted-proxies", Usage: "`ADDRESS,…` of proxies, or networks such as 10.0.0.0/8, whose X-Forwarded-Host and X-Forwarded-Proto are believed", def: fixed(""), list: func(c *Config) *[]string { return &c.TrustedProxies }},
	}
}

// Env is the environment variable of the key.
func (k Key) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_"))
}

// Default is the value that the key has when nobody sets it.
func (k Key) Default() string { return k.def() }

// set reads the value from text, as a flag or the environment gives it.
func (k Key) set(c *Config, text string) error {
	switch {
	case k.field != nil:
		*k.field(c) = text
	case k.list != nil:
		*k.list(c) = words(text)
	default:
		m := map[string]string{}
		for _, pair := range words(text) {
			name, ref, ok := strings.Cut(pair, "=")
			if !ok {
				return fmt.Errorf("%q is not of the form name=reference", pair)
			}
			m[name] = ref
		}
		*k.table(c) = m
	}
	return nil
}

// value is the inverse of set.
func (k Key) value(c *Config) string {
	switch {
	case k.field != nil:
		return *k.field(c)
	case k.list != nil:
		return strings.Join(*k.list(c), ",")
	default:
		m := *k.table(c)
		pairs := make([]string, 0, len(m))
		for _, name := range slices.Sorted(maps.Keys(m)) {
			pairs = append(pairs, name+"="+m[name])
		}
		return strings.Join(pairs, ",")
	}
}

func words(text string) []string {
	var list []string
	for w := range strings.SplitSeq(text, ",") {
		if w = strings.TrimSpace(w); w != "" {
			list = append(list, w)
		}
	}
	return list
}

// stateDir is /var/lib/backend.ai for root, else below the user's state directory.
func stateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/backend.ai"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "backend.ai", "server")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "backend.ai", "server")
}

// Source is where settings come from.
type Source struct {
	Flags map[string]string            // those that were given, by key
	Env   func(name string) string     // nil is none
	File  string                       // "" is none
	Read  func(string) ([]byte, error) // nil is os.ReadFile
}

// Load brings the sources together. Its error tells all faults.
func Load(src Source) (*Config, error) {
	c := &Config{origins: map[string]string{}}
	var faults []error
	fail := func(origin, name string, err error) {
		faults = append(faults, fmt.Errorf("%s (%s): %w", name, origin, err))
	}
	fromFile, err := readFile(src)
	if err != nil {
		return nil, err
	}
	for _, k := range Keys() {
		text, origin := k.def(), "default"
		if v, ok := fromFile[k.Name]; ok {
			text, origin = v, "file "+src.File
		}
		if src.Env != nil {
			if v := src.Env(k.Env()); v != "" {
				text, origin = v, "environment "+k.Env()
			}
		}
		if v, ok := src.Flags[k.Name]; ok {
			text, origin = v, "flag --"+k.Name
		}
		if err := k.set(c, text); err != nil {
			fail(origin, k.Name, err)
		}
		c.origins[k.Name] = origin
	}
	return c, errors.Join(append(faults, c.Validate())...)
}

// readFile gives the values of a TOML file as texts; unknown keys are errors.
func readFile(src Source) (map[string]string, error) {
	if src.File == "" {
		return nil, nil
	}
	read := src.Read
	if read == nil {
		read = os.ReadFile
	}
	data, err := read(src.File)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var raw map[string]any
	if _, err := toml.Decode(string(data), &raw); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", src.File, err)
	}
	values := map[string]string{}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if !slices.ContainsFunc(Keys(), func(k Key) bool { return k.Name == name }) {
			faults = append(faults, fmt.Errorf("%s: unknown key %q", src.File, name))
			continue
		}
		if values[name], err = flatten(raw[name]); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", src.File, name, err))
		}
	}
	return values, errors.Join(faults...)
}

// flatten writes a value of TOML as a flag would give it.
func flatten(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case []any:
		list := make([]string, 0, len(v))
		for _, e := range v {
			text, err := flatten(e)
			if err != nil {
				return "", err
			}
			list = append(list, text)
		}
		return strings.Join(list, ","), nil
	case map[string]any:
		pairs := make([]string, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			text, err := flatten(v[name])
			if err != nil {
				return "", err
			}
			pairs = append(pairs, name+"="+text)
		}
		return strings.Join(pairs, ","), nil
	default:
		return "", fmt.Errorf("a value of type %T is not understood", v)
	}
}

// Validate tells all faults, each with the key and where its value came from.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s (%s): %w", key, c.Origin(key), fmt.Errorf(format, args...)))
	}
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			fault(key, "%q is none of %s", value, strings.Join(allowed, ", "))
		}
	}
	if !filepath.IsAbs(c.StateDir) {
		fault("state-dir", "%q is not an absolute path", c.StateDir)
	}
	if c.RunDir != "" && !filepath.IsAbs(c.RunDir) {
		fault("run-dir", "%q is not an absolute path", c.RunDir)
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		fault("listen", "%q is not host:port", c.Listen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		fault("listen", "%q is not a port", port)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("tls-cert", "tls-cert and tls-key belong together")
	}
	oneOf("engine", c.Engine, EngineOCI, EngineFake)
	oneOf("network", c.Network, NetworkNAT, NetworkNone)
	if _, err := c.Capacity(); err != nil {
		faults = append(faults, err)
	}
	oneOf("log-level", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("log-format", c.LogFormat, "text", "json")
	if _, err := parseDays(c.LogRetention); err != nil {
		fault("log-retention", "%w", err)
	}
	c.validateStorage(fault)
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}

// Capacity is what the configuration gives to sessions; a slot that it does
// not name is for the engine to detect.
func (c *Config) Capacity() (backendai.Slots, error) {
	slots := backendai.Slots{}
	var faults []error
	for slot, text := range map[string]string{backendai.SlotCPU: c.CPU, backendai.SlotMem: c.Mem} {
		if text == "" {
			continue
		}
		amount, err := backendai.ParseAmount(slot, text)
		if err == nil && amount == 0 {
			err = errors.New("nothing is left for sessions")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s (%s): %w", slot, c.Origin(slot), err))
			continue
		}
		slots[slot] = amount
	}
	return slots, errors.Join(faults...)
}

// Level is the log-level.
func (c *Config) Level() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// Origin tells where the value of a key came from.
func (c *Config) Origin(key string) string {
	if origin, ok := c.origins[key]; ok {
		return origin
	}
	return "program"
}

// Setting is one value for people.
type Setting struct{ Key, Value, Origin string }

// Settings lists every value and its origin.
func (c *Config) Settings() []Setting {
	var list []Setting
	for _, k := range Keys() {
		list = append(list, Setting{k.Name, k.value(c), c.Origin(k.Name)})
	}
	return list
}
