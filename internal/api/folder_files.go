package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"time"

	"backendai"
	"backendai/internal/vfolder"
)

// names is a list of paths: unlike texts, a path alone may have commas in it.
func (p *params) names(names ...string) []string {
	v, name, ok := p.raw(names)
	if !ok {
		return nil
	}
	if text, ok := scalar(v); ok {
		return []string{text}
	}
	list, _ := v.([]any)
	paths := make([]string, 0, len(list))
	for _, v := range list {
		text, ok := scalar(v)
		if !ok {
			p.fault(name, "has an element that is not a text")
		}
		paths = append(paths, text)
	}
	if len(paths) == 0 {
		p.fault(name, "names nothing")
	}
	return paths
}

// folderFiles lists a directory, in the forms of both generations of clients.
func (h *Handler) folderFiles(c *call) error {
	path := c.text(".", "path")
	if err := c.err(); err != nil {
		return err
	}
	files, err := h.opts.Folders.Files(c.r.Context(), c.caller, c.path["folder"], path)
	if err != nil {
		return err
	}
	type item struct {
		Name     string `json:"name"`
		Type     string `json:"type"`
		Size     int64  `json:"size"`
		Mode     string `json:"mode"`
		Created  any    `json:"created"`
		Modified any    `json:"modified"`
	}
	type legacy struct {
		Name     string  `json:"filename"`
		Size     int64   `json:"size"`
		Mode     string  `json:"mode"`
		Changed  float64 `json:"ctime"`
		Modified float64 `json:"mtime"`
		Accessed float64 `json:"atime"`
	}
	items, old := make([]item, 0, len(files)), make([]legacy, 0, len(files))
	for _, f := range files {
		items = append(items, item{f.Name, f.Type(), f.Size, fmt.Sprintf("%03o", f.Mode.Perm()), stamp(f.Changed), stamp(f.Modified)})
		old = append(old, legacy{f.Name, f.Size, modeText(f), seconds(f.Changed), seconds(f.Modified), seconds(f.Modified)})
	}
	text, err := json.Marshal(old)
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	return c.json(http.StatusOK, map[string]any{"items": items, "files": string(text)})
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// modeText is a mode as ls writes it.
func modeText(f vfolder.File) string {
	kind := "-"
	switch {
	case f.Mode.IsDir():
		kind = "d"
	case f.Mode&fs.ModeSymlink != 0:
		kind = "l"
	case f.Mode&fs.ModeNamedPipe != 0:
		kind = "p"
	case f.Mode&fs.ModeSocket != 0:
		kind = "s"
	}
	return kind + f.Mode.Perm().String()[1:]
}

// makeFolders makes directories in a folder. The answer tells of each; when none
// could be made, it is the reason.
func (h *Handler) makeFolders(c *call) error {
	paths := c.names("path", "paths")
	if len(paths) == 0 {
		c.fault("path", "is required")
	}
	parents, existOK := c.flag(false, "parents"), c.flag(false, "exist_ok", "existOk")
	if err := c.err(); err != nil {
		return err
	}
	made, failed, err := h.opts.Folders.Mkdir(c.r.Context(), c.caller, c.path["folder"], paths, parents, existOK)
	if err != nil {
		return err
	}
	type outcome struct {
		Msg  string `json:"msg"`
		Item string `json:"item"`
	}
	success, failure := []outcome{}, []outcome{}
	for _, path := range made {
		success = append(success, outcome{"created", path})
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		if err := failed[path]; err != nil {
			failure = append(failure, outcome{err.Error(), path})
		}
	}
	if len(made) == 0 {
		return failed[paths[0]]
	}
	status := http.StatusCreated
	if len(failure) > 0 {
		status = http.StatusMultiStatus
	}
	return c.json(status, map[string]any{"results": map[string]any{"success": success, "failed": failure}})
}

func (h *Handler) renameFile(c *call, ref string) error {
	target, name := c.required("target_path", "targetPath"), c.required("new_name", "newName")
	if err := c.err(); err != nil {
		return err
	}
	return h.opts.Folders.RenameFile(c.r.Context(), c.caller, ref, target, name)
}

func (h *Handler) moveFile(c *call, ref string) error {
	src, dst := c.required("src"), c.required("dst")
	if err := c.err(); err != nil {
		return err
	}
	return h.opts.Folders.Move(c.r.Context(), c.caller, ref, src, dst)
}

func (h *Handler) deleteFiles(c *call, ref string) error {
	files, recursive := c.names("files"), c.flag(false, "recursive")
	if len(files) == 0 {
		c.fault("files", "is required")
	}
	if err := c.err(); err != nil {
		return err
	}
	return h.opts.Folders.Remove(c.r.Context(), c.caller, ref, files, recursive)
}

// backgroundTask follows a task as server-sent events (API section 5).
func (h *Handler) backgroundTask(c *call) error {
	id := c.required("taskId", "task_id")
	if err := c.err(); err != nil {
		return err
	}
	var rc *http.ResponseController
	send := func(name string, data map[string]any) error {
		if rc == nil {
			rc = c.stream("text/event-stream")
		}
		text, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		if _, err := fmt.Fprintf(c.w, "event: %s\ndata: %s\n\n", name, text); err != nil {
			return errGone
		}
		return rc.Flush()
	}
	err := h.opts.Folders.FollowTask(c.r.Context(), c.caller, id, func(s vfolder.TaskState) error {
		data := map[string]any{"task_id": id, "message": s.Message, "current_progress": s.Current, "total_progress": s.Total}
		switch {
		case !s.Done:
			return send("bgtask_updated", data)
		case s.Err != nil:
			data["message"] = reason(s.Err)
			return errors.Join(send("bgtask_failed", data), send("server_close", map[string]any{}))
		default:
			return errors.Join(send("bgtask_done", data), send("server_close", map[string]any{}))
		}
	})
	if rc != nil {
		return nil // whatever happened, the answer has begun
	}
	return err
}

// errGone ends what is told to a client that has gone.
var errGone = errors.New("the client has gone")

// reason is what of an error may be told.
func reason(err error) string {
	if e, ok := errors.AsType[*backendai.Error](err); ok {
		return e.Title
	}
	return "the server's log tells what failed"
}
