package api

import "net/http"

// terminals lists the open web terminals of a session. Like endTerminal, it is
// an extension of ours.
func (h *Handler) terminals(c *call) error {
	open, err := h.opts.Sessions.Terminals(c.r.Context(), c.caller, c.path["name"])
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"terminals": nonNil(open)})
}

// endTerminal ends one web terminal and what runs in it.
func (h *Handler) endTerminal(c *call) error {
	if err := h.opts.Sessions.EndTerminal(c.r.Context(), c.caller, c.path["name"], c.path["terminal"]); err != nil {
		return err
	}
	return c.noContent()
}
