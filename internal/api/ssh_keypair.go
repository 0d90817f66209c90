package api

import "net/http"

// sshKeypair is the account-wide SSH key (API section 8). A private half is in
// an answer only when the request made or brought it.
type sshKeypair struct {
	Public  string `json:"ssh_public_key"`
	Private string `json:"ssh_private_key,omitempty"`
}

func (h *Handler) sshKeypair(c *call) error {
	public, _, err := h.opts.Accounts.SSHKeypair(c.r.Context(), c.caller)
	if err != nil {
		return err
	}
	return c.secret(sshKeypair{Public: public})
}

func (h *Handler) newSSHKeypair(c *call) error {
	public, private, err := h.opts.Accounts.NewSSHKeypair(c.r.Context(), c.caller)
	if err != nil {
		return err
	}
	return c.secret(sshKeypair{public, private})
}

func (h *Handler) setSSHKeypair(c *call) error {
	public, private := c.required("pubkey", "ssh_public_key"), c.required("privkey", "ssh_private_key")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Accounts.SetSSHKeypair(c.r.Context(), c.caller, public, private); err != nil {
		return err
	}
	return c.secret(sshKeypair{public, private})
}

// secret answers with what no cache on the way may keep.
func (c *call) secret(v any) error {
	c.w.Header().Set("Cache-Control", "no-store")
	return c.json(http.StatusOK, v)
}
