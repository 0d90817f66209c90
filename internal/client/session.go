package client

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"backendai"
)

// CreateRequest is what a new session is asked to be. Zero values leave the
// server's defaults.
type CreateRequest struct {
	Name          string
	Image         string
	Architecture  string
	Type          backendai.SessionType
	Domain, Group string
	Owner         string // access key of whom the session is for
	Tag           string
	Priority      *int
	Resources     map[string]string // as on the wire: bytes or sizes with a unit
	ResourceOpts  map[string]string
	Environ       map[string]string
	Mounts        []backendai.Mount // an empty target is the server's choice
	PreopenPorts  []int
	Bootstrap     string
	Startup       string
	BatchTimeout  string
	StartsAt      string
	Dependencies  []string
	CallbackURL   string
	ClusterSize   int
	ClusterMode   string
	ScalingGroup  string
	Agents        []string
	Network       string
	EnqueueOnly   bool
	MaxWait       time.Duration // rounded up to seconds; 0 waits without limit
	NoReuse       bool
}

// StatusTimeout is the status of a Created that stopped waiting; the session
// goes on starting.
const StatusTimeout backendai.Status = "TIMEOUT"

// Created is a session as it was when the server answered.
type Created struct {
	ID      string           `json:"sessionId"`
	Name    string           `json:"sessionName"`
	Status  backendai.Status `json:"status"` // also StatusTimeout
	Created bool             `json:"created"`
	Apps    []backendai.App  `json:"servicePorts"`
	// Info and Message say why a session has not started; only our server tells.
	Info    string `json:"statusInfo"`
	Message string `json:"statusMessage"`
}

// CreateSession makes a session and waits until it runs, has failed, or
// MaxWait is over. The end of ctx ends the waiting, not the session.
func (c *Client) CreateSession(ctx context.Context, r CreateRequest) (*Created, error) {
	version, err := c.negotiateAny(ctx)
	if err != nil {
		return nil, err
	}
	answer := struct {
		Created

		// Older servers name the ports of a session that is used again so.
		Reused []backendai.App `json:"service_ports"`
	}{Created: Created{Created: true, Status: backendai.StatusRunning, Name: r.Name}}
	if err := c.read(ctx, call{method: http.MethodPost, path: []string{"session"}, json: r.wire(version)}, &answer); err != nil {
		return nil, err
	}
	created := answer.Created
	if len(created.Apps) == 0 {
		created.Apps = answer.Reused
	}
	return &created, nil
}

// negotiateAny is the version of the first endpoint that can be reached.
func (c *Client) negotiateAny(ctx context.Context) (v apiVersion, err error) {
	for i := range c.endpoints {
		v, err = c.negotiate(ctx, c.endpoints[(int(c.current.Load())+i)%len(c.endpoints)])
		if err == nil {
			break
		}
	}
	return v, err
}

// wire is the body of a create (API section 4.1) for a version of the protocol.
func (r CreateRequest) wire(v apiVersion) map[string]any {
	config := object{}
	config.set("resources", r.Resources, len(r.Resources) > 0)
	config.set("resource_opts", r.ResourceOpts, len(r.ResourceOpts) > 0)
	config.set("environ", r.Environ, len(r.Environ) > 0)
	config.set("preopen_ports", r.PreopenPorts, len(r.PreopenPorts) > 0)
	config.set("scalingGroup", r.ScalingGroup, r.ScalingGroup != "")
	config.set("agentList", r.Agents, len(r.Agents) > 0)
	config.set("attach_network", r.Network, r.Network != "")
	r.wireMounts(config)
	body := object{"image": r.Image, "enqueueOnly": r.EnqueueOnly, "reuseIfExists": !r.NoReuse, "config": config}
	if v.major <= 4 {
		body["clientSessionToken"] = r.Name
	} else {
		body["name"] = r.Name
	}
	body.set("maxWaitSeconds", int64((r.MaxWait+time.Second-1)/time.Second), r.MaxWait > 0)
	body.set("type", r.Type, r.Type != "")
	body.set("architecture", r.Architecture, r.Architecture != "")
	body.set("domain", r.Domain, r.Domain != "")
	body.set("group", r.Group, r.Group != "")
	body.set("owner_access_key", r.Owner, r.Owner != "")
	body.set("tag", r.Tag, r.Tag != "")
	body.set("priority", r.Priority, r.Priority != nil)
	body.set("bootstrap_script", r.Bootstrap, r.Bootstrap != "")
	body.set("startupCommand", r.Startup, r.Startup != "")
	body.set("batch_timeout", r.BatchTimeout, r.BatchTimeout != "")
	body.set("starts_at", r.StartsAt, r.StartsAt != "")
	body.set("dependencies", r.Dependencies, len(r.Dependencies) > 0)
	body.set("callback_url", r.CallbackURL, r.CallbackURL != "")
	body.set("clusterMode", r.ClusterMode, r.ClusterMode != "")
	if v.atLeast(6, "20200815") {
		body.set("clusterSize", r.ClusterSize, r.ClusterSize > 0)
	} else {
		config.set("clusterSize", r.ClusterSize, r.ClusterSize > 0)
	}
	return body
}

func (r CreateRequest) wireMounts(config object) {
	names, targets, options := []string{}, map[string]string{}, map[string]any{}
	for _, m := range r.Mounts {
		names = append(names, m.Source)
		if m.Target != "" {
			targets[m.Source] = m.Target
		}
		if m.Permission != "" {
			options[m.Source] = map[string]string{"type": "bind", "permission": m.Permission}
		}
	}
	config.set("mounts", names, len(names) > 0)
	config.set("mount_map", targets, len(targets) > 0)
	config.set("mount_options", options, len(options) > 0)
}

type object map[string]any

func (o object) set(name string, value any, given bool) {
	if given {
		o[name] = value
	}
}

// SessionInfo is the flat description of a session.
type SessionInfo struct {
	Status  backendai.Status `json:"status"`
	Info    string           `json:"statusInfo"`
	Message string           `json:"statusMessage"` // our server's
	Image   string           `json:"image"`
}

// SessionInfo describes a live session.
func (c *Client) SessionInfo(ctx context.Context, ref string) (SessionInfo, error) {
	var info SessionInfo
	err := c.read(ctx, call{method: http.MethodGet, path: []string{"session", ref}}, &info)
	return info, err
}

// DestroyOptions say how a session is removed.
type DestroyOptions struct {
	Forced    bool
	Recursive bool
	Owner     string // access key of whose session it is
}

// DestroySession removes a session, and returns its last statistics when it is gone.
func (c *Client) DestroySession(ctx context.Context, ref string, o DestroyOptions) (map[string]any, error) {
	query := owned(o.Owner)
	if o.Forced {
		query.Set("forced", "true")
	}
	if o.Recursive {
		query.Set("recursive", "true")
	}
	var answer struct {
		Stats map[string]any `json:"stats"`
	}
	err := c.read(ctx, call{method: http.MethodDelete, path: []string{"session", ref}, query: query}, &answer)
	return answer.Stats, err
}

// RestartSession makes the session's container anew; its home stays. It
// returns when the session runs again.
func (c *Client) RestartSession(ctx context.Context, ref, owner string) error {
	return c.read(ctx, call{method: http.MethodPatch, path: []string{"session", ref}, query: owned(owner)}, nil)
}

// RenameSession gives a running session another name.
func (c *Client) RenameSession(ctx context.Context, ref, name string) error {
	// Servers read the name from the query or from the body, by their age.
	k := call{
		method: http.MethodPost, path: []string{"session", ref, "rename"},
		query: url.Values{"name": {name}}, json: map[string]string{"name": name},
	}
	return c.read(ctx, k, nil)
}

// Match is a session that fits a prefix.
type Match struct {
	ID     string           `json:"id"`
	Name   string           `json:"name"`
	Status backendai.Status `json:"status"`
}

// MatchSessions lists the live sessions whose id or name begins with prefix.
func (c *Client) MatchSessions(ctx context.Context, prefix string) ([]Match, error) {
	var answer struct {
		Matches []Match `json:"matches"`
	}
	err := c.read(ctx, call{method: http.MethodGet, path: []string{"session", "_", "match"}, query: url.Values{"id": {prefix}}}, &answer)
	return answer.Matches, err
}

// SessionLogs is what a session printed. With follow it goes on until the
// session ends, if the server can do that. The caller closes it.
func (c *Client) SessionLogs(ctx context.Context, ref, kernel string, follow bool) (io.ReadCloser, error) {
	query := url.Values{}
	if kernel != "" {
		query.Set("kernel_id", kernel)
	}
	if follow {
		query.Set("follow", "true")
	}
	resp, err := c.do(ctx, call{method: http.MethodGet, path: []string{"session", ref, "logs"}, query: query})
	if err != nil {
		return nil, err
	}
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media == "text/plain" {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var answer struct {
		Result struct {
			Logs string `json:"logs"`
		} `json:"result"`
	}
	if err := c.decode(ctx, resp, &answer); err != nil {
		return nil, err
	}
	return io.NopCloser(strings.NewReader(answer.Result.Logs)), nil
}

// Apps lists what a tunnel can lead to in a session.
func (c *Client) Apps(ctx context.Context, ref string) ([]backendai.App, error) {
	var apps []backendai.App
	err := c.read(ctx, call{method: http.MethodGet, path: []string{"stream", "session", ref, "apps"}}, &apps)
	return apps, err
}

// Download calls each with the uncompressed tar of each path below the
// session's home, in order.
func (c *Client) Download(ctx context.Context, ref string, files []string, each func(file string, archive io.Reader) error) error {
	k := call{method: http.MethodPost, path: []string{"session", ref, "download"}, json: map[string]any{"files": files}}
	resp, err := c.do(ctx, k)
	if backendai.CodeOf(err) == backendai.CodeMethod { // servers up to 23.03
		k.method = http.MethodGet
		resp, err = c.do(ctx, k)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	media, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(media, "multipart/") {
		return backendai.Errorf(backendai.CodeInternal, "the server's answer to the download is not multipart but %q", media)
	}
	parts := multipart.NewReader(resp.Body, params["boundary"])
	for _, file := range files {
		part, err := parts.NextPart()
		if err != nil {
			return backendai.Errorf(backendai.CodeInternal, "the download of %q broke off: %w", file, err).WithHint("try again")
		}
		if encoding := part.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
			return backendai.Errorf(backendai.CodeInternal, "the server sends %q in the unknown encoding %q", file, encoding)
		}
		if err := each(file, part); err != nil {
			return err
		}
	}
	return nil
}

func owned(owner string) url.Values {
	query := url.Values{}
	if owner != "" {
		query.Set("owner_access_key", owner)
	}
	return query
}

// ConnectRequest names an app of a session and how it is started.
type ConnectRequest struct {
	App       string // name, or number of a port
	Port      int    // a secondary port of the app; 0 is the primary
	Arguments map[string][]string
	Envs      map[string]string
}

func (r ConnectRequest) query() (url.Values, error) {
	query := url.Values{"app": {r.App}}
	if r.Port != 0 {
		query.Set("port", strconv.Itoa(r.Port))
	}
	if len(r.Envs) > 0 {
		text, err := json.Marshal(r.Envs)
		if err != nil {
			return nil, err
		}
		query.Set("envs", string(text))
	}
	if len(r.Arguments) > 0 {
		arguments := map[string]any{}
		for name, values := range r.Arguments {
			switch len(values) {
			case 0:
				arguments[name] = nil
			case 1:
				arguments[name] = values[0]
			default:
				arguments[name] = values
			}
		}
		text, err := json.Marshal(arguments)
		if err != nil {
			return nil, err
		}
		query.Set("arguments", string(text))
	}
	return query, nil
}
