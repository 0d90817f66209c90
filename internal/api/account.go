package api

import (
	"net/http"

	"backendai"
)

// authTest echoes, which shows that the signature is right (API section 8).
func (h *Handler) authTest(c *call) error {
	echo := c.text("", "echo")
	if err := c.err(); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]string{"authorized": "yes", "echo": echo})
}

func (h *Handler) authRole(c *call) error {
	global, domain := "user", "user"
	switch c.caller.User.Role {
	case backendai.RoleSuperadmin:
		global, domain = "superadmin", "admin"
	case backendai.RoleAdmin:
		domain = "admin"
	}
	return c.json(http.StatusOK, map[string]any{"global_role": global, "domain_role": domain, "group_role": nil})
}
