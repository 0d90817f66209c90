package api

import (
	"errors"
	"net"
	"net/http"

	"backendai"
	"backendai/internal/session"
	"backendai/internal/tunnel"
)

// apps lists what a tunnel can lead to, as a bare list (API section 4.5).
func (h *Handler) apps(c *call) error {
	apps, err := h.opts.Sessions.Apps(c.r.Context(), c.caller, c.path["name"])
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, nonNil(apps))
}

// proxy starts the app if need be, connects to it, and only then upgrades the
// request: what went wrong is an answer of HTTP, not of the tunnel.
func (h *Handler) proxy(c *call) error {
	req := session.ConnectRequest{
		App: c.required("app", "service"), Port: c.integer(0, 1, 65535, "port"),
		Arguments: c.argumentMap("arguments"), Envs: c.textMap("envs"),
	}
	if err := c.err(); err != nil {
		return err
	}
	form := tunnel.Requested(c.r)
	if form == tunnel.FormNone {
		// Nothing is started for a request that cannot carry a tunnel.
		if _, err := h.opts.Sessions.Find(c.r.Context(), c.caller, c.path["name"], false); err != nil {
			return err
		}
		return backendai.Errorf(backendai.CodeBadRequest, "this path is for tunnels").
			WithHint("upgrade the connection to %s or websocket", tunnel.Protocol)
	}
	target, err := h.opts.Sessions.Connect(c.r.Context(), c.caller, c.path["name"], req)
	if err != nil {
		if opErr, ok := errors.AsType[*net.OpError](err); ok && form == tunnel.FormWebSocket {
			c.w.status = http.StatusSwitchingProtocols
			return tunnel.Refuse(c.w.ResponseWriter, c.r, opErr)
		}
		return err
	}
	life, end, err := h.held(h.life, c)
	if err != nil {
		_ = target.Close()
		return err
	}
	h.streams.Add(1)
	c.w.status = http.StatusSwitchingProtocols // the tunnel answers from here on
	conn, err := tunnel.Accept(c.w.ResponseWriter, c.r)
	if err != nil {
		h.streams.Done()
		end()
		_ = target.Close()
		return err
	}
	log := h.log.With("request", c.id, "session", c.path["name"], "app", req.App)
	// The server gives the request's memory and the stack back when this returns.
	go func() {
		defer h.streams.Done()
		defer end()
		in, out, err := tunnel.Relay(life, conn, target)
		log.Debug("tunnel ended", "in", in, "out", out, "err", err)
	}()
	return nil
}

// argumentMap reads {"--option": null | "v" | ["v1", "v2"]}, which may be JSON text.
func (p *params) argumentMap(name string) map[string][]string {
	object := p.object(name)
	arguments := make(map[string][]string, len(object))
	for key, v := range object {
		switch v := v.(type) {
		case nil:
			arguments[key] = nil
		case []any:
			one := params{values: map[string]any{name: v}, prefix: p.prefix, faults: p.faults}
			arguments[key] = one.texts(name)
		default:
			text, ok := scalar(v)
			if !ok {
				p.fault(name+"."+key, "is not a text, a list of texts, or null")
			}
			arguments[key] = []string{text}
		}
	}
	return arguments
}
