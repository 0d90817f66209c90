package api

import (
	"net/http"
	"slices"
)

// apiVersion is what the server speaks; clients take the lower of it and their own (API section 1).
const apiVersion = "v9.20250722"

// supportedVersion tells whether requests of a version are understood.
func supportedVersion(v string) bool {
	return slices.Contains([]string{
		"v4.20181215", "v4.20190115", "v4.20190315", "v4.20190615", "v5.20191215", "v6.20200815", "v6.20210815",
		"v6.20220315", "v6.20220615", "v6.20221201", "v6.20230315", "v7.20230615", "v8.20240315", "v8.20240915", apiVersion,
	}, v)
}

// greet tells the versions; it is the only call that needs no signature.
func (h *Handler) greet(c *call) error {
	return c.json(http.StatusOK, map[string]string{"version": apiVersion, "manager": h.opts.Version})
}

// announcement answers what clients ask before every command.
func (h *Handler) announcement(c *call) error {
	return c.json(http.StatusOK, map[string]any{"enabled": false, "message": ""})
}
