package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"backendai"
)

// apiVersion is a version of the protocol, v<major>.<date> (API section 1).
type apiVersion struct {
	major int
	date  string
}

// clientVersion is the newest version that this client speaks.
var clientVersion = apiVersion{9, "20250722"}

var versionRE = regexp.MustCompile(`^v(\d{1,4})\.(\d{8})$`)

func parseVersion(text string) (apiVersion, bool) {
	m := versionRE.FindStringSubmatch(text)
	if m == nil {
		return apiVersion{}, false
	}
	major, err := strconv.Atoi(m[1])
	return apiVersion{major, m[2]}, err == nil
}

func (v apiVersion) String() string { return fmt.Sprintf("v%d.%s", v.major, v.date) }

// atLeast tells whether v has what came with another version.
func (v apiVersion) atLeast(major int, date string) bool {
	return v.major > major || v.major == major && v.date >= date
}

// ServerInfo is what a server says of itself.
type ServerInfo struct {
	Endpoint   string
	API        string // version that the server speaks
	Manager    string // version of the server's program
	Negotiated string // version that calls will have
}

// ClientAPI is the newest API version that the client speaks.
func ClientAPI() string { return clientVersion.String() }

// Speaks tells whether calls have at least a version of the API, such as 8,
// "20240915".
func (c *Client) Speaks(ctx context.Context, major int, date string) (bool, error) {
	v, err := c.negotiateAny(ctx)
	return v.atLeast(major, date), err
}

// Greet asks the servers what they are, without a signature; the first that
// answers counts.
func (c *Client) Greet(ctx context.Context) (ServerInfo, error) {
	var last error
	for _, endpoint := range c.endpoints {
		info, err := c.greet(ctx, endpoint)
		if err == nil {
			return info, nil
		}
		last = err
	}
	return ServerInfo{}, last
}

// greetTimeout bounds the one call that must not hang.
const greetTimeout = 15 * time.Second

func (c *Client) greet(ctx context.Context, endpoint *url.URL) (ServerInfo, error) {
	timed, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(timed, http.MethodGet, endpoint.JoinPath("/").String(), http.NoBody)
	if err != nil {
		return ServerInfo{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		if timed.Err() != nil && ctx.Err() == nil {
			return ServerInfo{}, backendai.Errorf(backendai.CodeUnreachable, "the server at %s://%s does not answer", endpoint.Scheme, endpoint.Host).
				WithHint("BACKEND_ENDPOINT tells the address; is that a Backend.AI server?")
		}
		return ServerInfo{}, c.unreachable(ctx, endpoint, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return ServerInfo{}, c.unreachable(ctx, endpoint, err)
	}
	var answer struct{ Version, Manager string }
	server, ok := apiVersion{}, false
	if json.Unmarshal(text, &answer) == nil {
		server, ok = parseVersion(answer.Version)
	}
	if resp.StatusCode != http.StatusOK || !ok {
		return ServerInfo{}, backendai.Errorf(backendai.CodeInvalidParams, "what answers at %s is not a Backend.AI server", endpoint).
			WithHint("BACKEND_ENDPOINT tells the address")
	}
	lower := clientVersion
	if clientVersion.atLeast(server.major, server.date) {
		lower = server
	}
	c.versions.put(endpoint.String(), lower, c.opts.Now())
	return ServerInfo{Endpoint: endpoint.String(), API: answer.Version, Manager: answer.Manager, Negotiated: lower.String()}, nil
}

// negotiate is the version for calls to an endpoint. It is remembered for a
// day, so that a command does not begin by asking for it.
func (c *Client) negotiate(ctx context.Context, endpoint *url.URL) (apiVersion, error) {
	if v, ok := c.versions.get(endpoint.String(), c.opts.Now()); ok {
		return v, nil
	}
	info, err := c.greet(ctx, endpoint)
	if err != nil {
		return apiVersion{}, err
	}
	v, _ := parseVersion(info.Negotiated)
	return v, nil
}

// staleVersion tells whether a server no longer knows the version of a call.
func staleVersion(err error) bool {
	return backendai.CodeOf(err) == backendai.CodeBadRequest && strings.Contains(strings.ToLower(err.Error()), "version")
}

// versionAge is how long a negotiated version counts.
const versionAge = 24 * time.Hour

// versions remembers what was negotiated with each endpoint, in memory and, if
// there is a folder, in a file. The file is a cache: that it cannot be read or
// written costs a round trip and nothing else.
type versions struct {
	path string // "" keeps no file

	mu      sync.Mutex
	loaded  bool
	entries map[string]versionEntry // by endpoint
}

type versionEntry struct {
	Version string    `json:"version"`
	At      time.Time `json:"at"`
}

func newVersions(dir string) *versions {
	v := &versions{entries: map[string]versionEntry{}}
	if dir != "" {
		v.path = filepath.Join(dir, "versions.json")
	}
	return v
}

func (v *versions) get(endpoint string, now time.Time) (apiVersion, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.load()
	e, ok := v.entries[endpoint]
	if !ok || now.Sub(e.At).Abs() > versionAge {
		return apiVersion{}, false
	}
	return parseVersion(e.Version)
}

func (v *versions) put(endpoint string, version apiVersion, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.load()
	v.entries[endpoint] = versionEntry{version.String(), now}
	v.save()
}

// forget tells whether there was something to forget.
func (v *versions) forget(endpoint string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.entries[endpoint]
	delete(v.entries, endpoint)
	v.save()
	return ok
}

func (v *versions) load() {
	if v.loaded || v.path == "" {
		return
	}
	v.loaded = true
	text, err := os.ReadFile(v.path)
	if err != nil {
		return
	}
	var entries map[string]versionEntry
	if json.Unmarshal(text, &entries) == nil && entries != nil {
		v.entries = entries
	}
}

func (v *versions) save() {
	if v.path == "" {
		return
	}
	text, err := json.Marshal(v.entries)
	if err != nil || os.MkdirAll(filepath.Dir(v.path), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(v.path), ".versions-*")
	if err != nil {
		return
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err != nil || closeErr != nil || os.Rename(f.Name(), v.path) != nil {
		_ = os.Remove(f.Name())
	}
}
