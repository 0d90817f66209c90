package api

import (
	"net/http"

	"backendai"
)

// resourceSlots tells the slots of this machine and their units (API section 8).
func (h *Handler) resourceSlots(c *call) error {
	capacity, err := h.opts.Capacity(c.r.Context())
	if err != nil {
		return err
	}
	units := map[string]string{}
	for slot := range capacity {
		units[slot] = "count"
		if backendai.IsBytes(slot) {
			units[slot] = "bytes"
		}
	}
	return c.json(http.StatusOK, units)
}

func (h *Handler) vfolderTypes(c *call) error {
	return c.json(http.StatusOK, []string{"user", "group"})
}

// resourcePresets are none: nobody can define any yet.
func (h *Handler) resourcePresets(c *call) error {
	return c.json(http.StatusOK, map[string]any{"presets": []any{}})
}

// scalingGroups has the one group that a single machine is.
func (h *Handler) scalingGroups(c *call) error {
	return c.json(http.StatusOK, map[string]any{"scaling_groups": []map[string]string{{"name": scalingGroup}}})
}
