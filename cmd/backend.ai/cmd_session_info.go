package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

var infoColumns = []column{
	{name: "name"}, {name: "session_id"}, {name: "priority"}, {name: "image"}, {name: "type"}, {name: "tag"},
	{name: "created_at"}, {name: "terminated_at"}, {name: "status"}, {name: "status_info"}, {name: "status_data", json: true},
	{name: "status_history", format: historyCell, json: true}, {name: "result"}, {name: "occupied_slots", format: slotsCell, json: true},
	{name: "occupying_slots", format: slotsCell, json: true},
	{
		name: "containers", format: containersCell,
		query: "containers { id cluster_role cluster_idx cluster_hostname session_id image status status_info status_changed agent container_id }",
	},
	{
		name: "dependencies", query: "dependencies { name id }",
		format: func(v any) string {
			return nestedCell(v, func(o map[string]any) string { return fmt.Sprintf("%v (%v)", o["name"], o["id"]) }, ", ")
		},
	},
}

// historyCell writes the statuses in the order in which they were entered.
func historyCell(v any) string {
	times, _ := v.(map[string]any)
	at := func(status string) string { return fmt.Sprint(times[status]) }
	steps := slices.SortedFunc(maps.Keys(times), func(a, b string) int {
		return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(slices.Index(backendai.Statuses(), backendai.Status(a)), slices.Index(backendai.Statuses(), backendai.Status(b))))
	})
	for i, status := range steps {
		steps[i] = at(status) + " " + status
	}
	return cmp.Or(strings.Join(steps, "\n"), "(empty)")
}

func containersCell(v any) string {
	return nestedCell(v, func(o map[string]any) string {
		return fmt.Sprintf("%v%v: %v, agent %v", o["cluster_role"], o["cluster_idx"], o["status"], o["agent"])
	}, "\n")
}

// newSessionInfoCommand is "info".
func newSessionInfoCommand(e *env, name string) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " SESSION", Short: "Show all about a session", Args: arguments("SESSION"),
		Long: "Shows all that is known of one session: its image, status and reason, history, resources and containers. A session that has ended is found by its full id only.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			return e.sessionInfo(cmd.Context(), c, args[0])
		},
	}
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or id of the session, or how one of them begins"}},
		examples:  [][2]string{{"For people", "backend.ai info mysession"}, {"For programs", "backend.ai --output json info mysession"}},
	})
}

var uuidRE = regexp.MustCompile(`(?i)^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$`)

func (e *env) sessionInfo(ctx context.Context, c *client.Client, ref string) error {
	id, err := sessionID(ctx, c, ref)
	if err != nil {
		return err
	}
	newest, err := c.Speaks(ctx, 8, "20240915")
	if err != nil {
		return err
	}
	names := []string{"name", "session_id", "image", "tag", "created_at", "terminated_at", "status", "status_info", "status_data"}
	if newest {
		names = append(names, "priority", "type", "result", "status_history", "occupying_slots")
	} else {
		names = append(names, "occupied_slots")
	}
	columns := pick(infoColumns, append(names, "containers", "dependencies")...)
	row, err := c.One(ctx, "compute_session", map[string]client.Argument{"id": {Type: "UUID!", Value: id}}, selections(columns))
	if err != nil {
		return err
	}
	return showOne(e, columns, row, "session", ref)
}

// sessionID finds the id of a live session; a full id is taken as it is.
func sessionID(ctx context.Context, c *client.Client, ref string) (string, error) {
	if uuidRE.MatchString(ref) {
		return ref, nil
	}
	matches, err := c.MatchSessions(ctx, ref)
	if err != nil {
		return "", err
	}
	var candidates []any
	for _, m := range matches {
		if m.Name == ref {
			return m.ID, nil
		}
		candidates = append(candidates, map[string]any{"id": m.ID, "name": m.Name, "status": m.Status})
	}
	switch len(matches) {
	case 0:
		return "", backendai.NotFound("session", ref).WithHint("'backend.ai ps -a' lists all; one that has ended is found by its full id")
	case 1:
		return matches[0].ID, nil
	}
	return "", backendai.Errorf(backendai.CodeTooManySessions, "several sessions begin with %q", ref).WithData(map[string]any{"matches": candidates})
}
