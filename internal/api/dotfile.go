package api

import (
	"net/http"

	"backendai/internal/dotfile"
)

// getDotfiles lists the dotfiles of the keypair, or gives the one of a path,
// whose permission the protocol calls otherwise (API section 8).
func (h *Handler) getDotfiles(c *call) error {
	path := c.text("", "path")
	if err := c.err(); err != nil {
		return err
	}
	if path != "" {
		f, err := h.opts.Dotfiles.Get(c.r.Context(), c.caller, path)
		if err != nil {
			return err
		}
		return c.json(http.StatusOK, map[string]string{"path": f.Path, "perm": f.Permission, "data": f.Data})
	}
	files, err := h.opts.Dotfiles.List(c.r.Context(), c.caller)
	if err != nil {
		return err
	}
	list := make([]map[string]string, 0, len(files))
	for _, f := range files {
		list = append(list, map[string]string{"path": f.Path, "permission": f.Permission, "data": f.Data})
	}
	return c.json(http.StatusOK, list)
}

// dotfile reads the file of a call.
func (c *call) dotfile() (dotfile.File, error) {
	f := dotfile.File{Path: c.required("path"), Permission: c.text("644", "permission", "perm"), Data: c.text("", "data")}
	return f, c.err()
}

func (h *Handler) createDotfile(c *call) error {
	f, err := c.dotfile()
	if err != nil {
		return err
	}
	if err := h.opts.Dotfiles.Create(c.r.Context(), c.caller, f); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{})
}

func (h *Handler) updateDotfile(c *call) error {
	f, err := c.dotfile()
	if err != nil {
		return err
	}
	if err := h.opts.Dotfiles.Update(c.r.Context(), c.caller, f); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{})
}

func (h *Handler) deleteDotfile(c *call) error {
	path := c.required("path")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Dotfiles.Delete(c.r.Context(), c.caller, path); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"success": true})
}

func (h *Handler) bootstrapScript(c *call) error {
	script, err := h.opts.Dotfiles.Bootstrap(c.r.Context(), c.caller.Keypair.AccessKey)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, script)
}

func (h *Handler) setBootstrapScript(c *call) error {
	script := c.text("", "script")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Dotfiles.SetBootstrap(c.r.Context(), c.caller, script); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{})
}
