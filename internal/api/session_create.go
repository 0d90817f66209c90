package api

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"backendai"
	"backendai/internal/session"
)

const (
	scalingGroup  = "default" // the one that a single machine is
	home          = "/home/work"
	statusTimeout = "TIMEOUT" // of a create that stopped waiting
)

// createReply is the answer to a create (API section 4.1). StatusInfo and
// StatusMessage are ours: why a session that did not start has ended.
type createReply struct {
	SessionID     string          `json:"sessionId"`
	SessionName   string          `json:"sessionName"`
	Status        string          `json:"status"`
	StatusInfo    string          `json:"statusInfo,omitempty"`
	StatusMessage string          `json:"statusMessage,omitempty"`
	Created       bool            `json:"created"`
	ServicePorts  []backendai.App `json:"servicePorts"`
	// ReusedPorts is what older servers named the ports of a session that is used again.
	ReusedPorts []backendai.App `json:"service_ports,omitempty"`
}

// createSession makes a session and answers when it runs, has failed, or the
// caller wants to wait no longer.
func (h *Handler) createSession(c *call) error {
	req := h.createRequest(c)
	if err := c.err(); err != nil {
		return err
	}
	result, err := h.opts.Sessions.Create(c.r.Context(), c.caller, req)
	if err != nil {
		return err
	}
	s := result.Session
	reply := createReply{SessionID: s.ID, SessionName: s.Name, Status: string(s.Status), Created: result.Created, ServicePorts: []backendai.App{}}
	if s.Status == backendai.StatusRunning {
		reply.ServicePorts = append(reply.ServicePorts, s.Apps...)
	} else {
		reply.StatusInfo, reply.StatusMessage = s.StatusInfo, s.StatusMessage
	}
	status := http.StatusCreated
	if !result.Created {
		status, reply.ReusedPorts = http.StatusOK, reply.ServicePorts
	}
	if result.TimedOut {
		reply.Status = statusTimeout
	}
	return c.json(status, reply)
}

// createRequest reads every key of API section 4.1. What this platform does not
// have is refused by name; the rest is for the service to check.
func (h *Handler) createRequest(c *call) session.CreateRequest {
	req := session.CreateRequest{
		Image:        c.required("image", "lang"),
		Name:         c.required("name", "clientSessionToken", "session_name", "sessionName"),
		Architecture: c.text("", "architecture", "arch"),
		Type:         backendai.SessionType(strings.ToLower(c.text(string(backendai.Interactive), "type", "sessionType", "session_type"))),
		Domain:       c.text(c.caller.User.Domain, "domain", "domainName", "domain_name"),
		Group:        c.text("default", "group", "groupName", "group_name"),
		Tag:          c.text("", "tag"),
		Priority:     c.integer(10, 0, 100, "priority"),
		Bootstrap:    c.text("", "bootstrap_script", "bootstrapScript"),
		Startup:      c.text("", "startupCommand", "startup_command"),
		BatchTimeout: c.duration("batch_timeout", "batchTimeout"),
		StartsAt:     c.moment(h.now(), "starts_at", "startsAt"),
		Dependencies: c.texts("dependencies"),
		CallbackURL:  c.text("", "callback_url", "callbackUrl", "callbackURL"),
		EnqueueOnly:  c.flag(false, "enqueueOnly", "enqueue_only"),
		MaxWait:      time.Duration(c.integer(0, 0, 1<<31, "maxWaitSeconds", "max_wait_seconds")) * time.Second,
		Reuse:        c.flag(true, "reuseIfExists", "reuse", "reuse_if_exists"),
	}
	if mode := c.text("single-node", "clusterMode", "cluster_mode"); !slices.Contains([]string{"single-node", "multi-node"}, strings.ToLower(mode)) {
		c.fault("clusterMode", "is neither single-node nor multi-node")
	}
	config := c.sub("config")
	// Up to API version 5 the size of a cluster stood inside the configuration.
	req.ClusterSize = c.integer(config.integer(1, 1, 1<<16, "clusterSize", "cluster_size"), 1, 1<<16, "clusterSize", "cluster_size")
	readConfig(config, &req)
	return req
}

// readConfig reads the "config" object of a create.
func readConfig(p *params, req *session.CreateRequest) {
	req.Resources = p.textMap("resources")
	req.ResourceOpts = p.textMap("resource_opts", "resourceOpts")
	req.Environ = p.textMap("environ")
	req.Mounts = readMounts(p)
	for _, text := range p.texts("preopen_ports", "preopenPorts") {
		one := params{values: map[string]any{"preopen_ports": text}, prefix: p.prefix, faults: p.faults}
		if port := one.integer(0, 1024, 65535, "preopen_ports"); port != 0 {
			req.PreopenPorts = append(req.PreopenPorts, port)
		}
	}
	if group := p.text(scalingGroup, "scalingGroup", "scaling_group"); group != scalingGroup && group != "" {
		p.fault("scaling_group", "there is no scaling group %q; this server has %q only", group, scalingGroup)
	}
	if len(p.texts("agentList", "agent_list")) > 0 {
		p.fault("agent_list", "this server has one machine; agents cannot be chosen")
	}
	if p.text("", "attach_network", "attachNetwork") != "" {
		p.fault("attach_network", "networks are not supported")
	}
}

// readMounts brings the three ways to ask for folders together, in the order of
// "mounts" and then of name. Targets that nobody named are empty: a folder that
// is named by its id is mounted under its name.
func readMounts(p *params) []backendai.Mount {
	targets := p.textMap("mount_map", "mountMap")
	maps.Copy(targets, p.textMap("mount_id_map", "mountIdMap"))
	sources := append(p.texts("mounts"), p.texts("mount_ids", "mountIds")...)
	for _, source := range slices.Sorted(maps.Keys(targets)) {
		if !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	options := p.sub(firstOf(p, "mount_options", "mountOptions"))
	for source := range options.values {
		if !slices.Contains(sources, source) {
			options.fault(source, "is not among the mounts")
		}
	}
	var mounts []backendai.Mount
	for _, source := range sources {
		m := backendai.Mount{Source: source, Target: targets[source]}
		if options.values[source] != nil {
			readMountOptions(options.sub(source), &m)
		}
		if _, asked := targets[source]; asked && m.Target == "" {
			p.fault("mount_map."+source, "is empty")
		}
		if m.Target != "" && !path.IsAbs(m.Target) {
			m.Target = path.Join(home, m.Target)
		}
		mounts = append(mounts, m)
	}
	return mounts
}

func readMountOptions(p *params, m *backendai.Mount) {
	m.Permission = p.text("", "permission", "perm")
	if !slices.Contains([]string{"", "ro", "rw", "wd"}, m.Permission) {
		p.fault("permission", "is none of ro, rw and wd")
	}
	if kind := p.text("bind", "type"); kind != "bind" {
		p.fault("type", "is not bind")
	}
	if target := p.text("", "mount_destination", "mountDestination"); target != "" {
		m.Target = target
	}
	m.Subpath = p.text("", "subpath")
}

// firstOf is the name under which a parameter came.
func firstOf(p *params, names ...string) string {
	_, name, _ := p.raw(names)
	return name
}
