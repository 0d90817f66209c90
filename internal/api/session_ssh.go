package api

import "net/http"

// hostKeys tells which keys the session's sshd proves itself with, so that
// clients need not trust the first one that they meet. It is an extension of
// ours. The session's id comes with them: names are used again, ids never.
func (h *Handler) hostKeys(c *call) error {
	s, err := h.opts.Sessions.Find(c.r.Context(), c.caller, c.path["name"], false)
	if err != nil {
		return err
	}
	keys, err := h.opts.Sessions.HostKeys(c.r.Context(), c.caller, s.ID)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"id": s.ID, "name": s.Name, "host_keys": nonNil(keys)})
}
