package api

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"backendai"
)

// maxLogs bounds the log in an answer that is no stream, in bytes.
const maxLogs = 10 << 20

// sessionInfo answers with the flat description of API section 4.2.
func (h *Handler) sessionInfo(c *call) error {
	s, err := h.opts.Sessions.Find(c.r.Context(), c.caller, c.path["name"], false)
	if err != nil {
		return err
	}
	var age int64
	if !s.CreatedAt.IsZero() {
		age = h.now().Sub(s.CreatedAt).Milliseconds()
	}
	return c.json(http.StatusOK, map[string]any{
		"id": s.ID, "name": s.Name, "type": s.Type,
		"domainName": s.Domain, "groupId": s.Group, "userId": s.UserID,
		"lang": s.Image, "image": s.Image, "architecture": s.Architecture, "registry": registry(s.Image), "tag": s.Tag,
		"containerId": s.ID, "occupiedSlots": occupied(s).Wire(), "occupyingSlots": occupied(s).Wire(), "requestedSlots": s.Requested.Wire(),
		"occupiedShares": map[string]string{}, "environ": s.Environ, "resourceOpts": map[string]any{"shmem": s.Shmem},
		"status": s.Status, "statusInfo": s.StatusInfo, "statusMessage": s.StatusMessage, "statusData": map[string]any{},
		"age": age, "creationTime": stamp(s.CreatedAt), "terminationTime": stamp(s.TerminatedAt),
		"numQueriesExecuted": 0, "lastStat": nil, "idleChecks": map[string]any{}, "servicePorts": nonNil(s.Apps),
	})
}

// occupied is what a session holds now.
func occupied(s *backendai.Session) backendai.Slots {
	if !s.Status.Occupies() {
		return backendai.Slots{}
	}
	return s.Requested
}

func registry(ref string) string {
	host, _, _ := strings.Cut(ref, "/")
	return host
}

// stamp is a time on the wire; null when it has not come.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// nonNil makes an empty list of none, which clients iterate over.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// destroySession answers when the session is gone.
func (h *Handler) destroySession(c *call) error {
	// "recursive" asks for what depends on the session too, which the end of the
	// session decides anyway: what waits for it can never start.
	forced := c.flag(false, "forced")
	if err := c.err(); err != nil {
		return err
	}
	s, err := h.opts.Sessions.Destroy(c.r.Context(), c.caller, c.path["name"], forced)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"stats": map[string]any{"version": 2, "status": strings.ToLower(string(s.Status))}})
}

func (h *Handler) restartSession(c *call) error {
	if err := h.opts.Sessions.Restart(c.r.Context(), c.caller, c.path["name"]); err != nil {
		return err
	}
	return c.noContent()
}

func (h *Handler) renameSession(c *call) error {
	name := c.required("name", "session_name", "sessionName")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Sessions.Rename(c.r.Context(), c.caller, c.path["name"], name); err != nil {
		return err
	}
	return c.noContent()
}

func (h *Handler) interruptSession(c *call) error {
	if err := h.opts.Sessions.Interrupt(c.r.Context(), c.caller, c.path["name"]); err != nil {
		return err
	}
	return c.noContent()
}

func (h *Handler) shutdownService(c *call) error {
	app := c.required("service_name", "serviceName", "service", "app")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Sessions.ShutdownApp(c.r.Context(), c.caller, c.path["name"], app); err != nil {
		return err
	}
	return c.noContent()
}

func (h *Handler) matchSessions(c *call) error {
	prefix := c.required("id", "name")
	if err := c.err(); err != nil {
		return err
	}
	found, err := h.opts.Sessions.Match(c.r.Context(), c.caller, prefix)
	if err != nil {
		return err
	}
	matches := make([]map[string]any, 0, len(found))
	for _, s := range found {
		matches = append(matches, map[string]any{"id": s.ID, "name": s.Name, "status": s.Status})
	}
	return c.json(http.StatusOK, map[string]any{"matches": matches})
}

// statusHistory tells when each status was last entered.
func (h *Handler) statusHistory(c *call) error {
	s, err := h.opts.Sessions.Find(c.r.Context(), c.caller, c.path["name"], true)
	if err != nil {
		return err
	}
	times := map[string]any{}
	for _, step := range s.History {
		times[strings.ToLower(string(step.Status))] = stamp(step.At)
	}
	return c.json(http.StatusOK, map[string]any{"result": times})
}

// sessionLogs answers with the log so far in the protocol's form; with
// follow=true, which is ours, it streams plain text until the session ends.
func (h *Handler) sessionLogs(c *call) error {
	follow := c.flag(false, "follow")
	if err := c.err(); err != nil {
		return err
	}
	log, err := h.opts.Sessions.Logs(c.r.Context(), c.caller, c.path["name"], follow)
	if err != nil {
		return err
	}
	defer log.Close()
	if !follow {
		text, err := io.ReadAll(io.LimitReader(log, maxLogs))
		if err != nil {
			return err
		}
		return c.json(http.StatusOK, map[string]any{"result": map[string]string{"logs": string(text)}})
	}
	return follows(c, log)
}

// follows passes what a stream gives on at once, until it or the client ends.
func follows(c *call, from io.Reader) error {
	rc := c.stream("text/plain; charset=utf-8")
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := c.w.Write(buf[:n]); err != nil {
				return nil // the client has gone
			}
			if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
