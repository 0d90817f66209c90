package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// sessionColumns are the fields of a session in lists.
var sessionColumns = []column{
	{name: "name"}, {name: "access_key"}, {name: "session_id"}, {name: "id", title: "Kernel ID"}, {name: "priority"},
	{name: "group_name"}, {name: "image"}, {name: "architecture"}, {name: "type"}, {name: "status"}, {name: "status_info"},
	{name: "status_changed"}, {name: "result"}, {name: "tag"}, {name: "created_at"}, {name: "terminated_at"},
	{name: "occupied_slots", format: slotsCell, json: true}, {name: "occupying_slots", format: slotsCell, json: true},
	{name: "requested_slots", format: slotsCell, json: true}, {name: "domain_name"}, {name: "user_email"}, {name: "full_name"},
	{name: "cluster_mode"}, {name: "cluster_size"}, {name: "scaling_group"}, {name: "startup_command"}, {name: "starts_at"},
	{name: "service_ports", json: true}, {name: "mounts"}, {name: "status_history", format: historyCell, json: true},
}

// The sets of statuses of the two generations of the protocol (CLI reference 2.6).
var (
	liveStatuses = []string{
		"PENDING", "SCHEDULED", "PREPARING", "PULLING", "PREPARED", "CREATING", "RUNNING", "RUNNING_DEGRADED",
		"RESTARTING", "TERMINATING", "ERROR",
	}
	liveStatusesV6 = []string{
		"PENDING", "SCHEDULED", "PREPARING", "PULLING", "RUNNING", "RESTARTING", "TERMINATING", "RESIZING", "SUSPENDED", "ERROR",
	}
	runningStatuses   = []string{"CREATING", "RUNNING", "RUNNING_DEGRADED"}
	runningStatusesV6 = []string{"PREPARING", "PULLING", "RUNNING"}
	deadStatuses      = []string{"CANCELLED", "TERMINATED"}
)

const statusAll = "ALL"

type sessionListOptions struct {
	listing

	status, accessKey          string
	dead, running, detail, all bool
}

// newSessionListCommand is "ps", "session list" and "admin session list".
func newSessionListCommand(e *env, name string, aliases ...string) *cobra.Command {
	var o sessionListOptions
	cmd := &cobra.Command{
		Use: name, Aliases: aliases, Short: "List sessions", Args: arguments(),
		Long: "Lists your live sessions; administrators see those of all users. In the form json the fields have the names that -f knows.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			return o.run(cmd.Context(), e, c)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.status, "status", "s", "", "show sessions of the `STATUS` (several with commas): "+strings.Join(slices.Concat(liveStatuses, deadStatuses), ", ")+" or ALL; without it the live ones")
	f.StringVar(&o.accessKey, "access-key", "", "show sessions of the access `KEY`; for administrators; without it those you may see")
	f.BoolVar(&o.nameOnly, "name-only", false, "show the names only, one per line")
	f.BoolVar(&o.dead, "dead", false, "show sessions that have ended, whatever -s says")
	f.BoolVar(&o.running, "running", false, "show sessions that run, whatever -s says")
	f.BoolVar(&o.detail, "detail", false, "show more fields")
	f.BoolVarP(&o.all, "all", "a", false, "show live and ended sessions; the same as -s ALL")
	o.flags(cmd, sessionColumns)
	return document(cmd, manual{
		examples: [][2]string{
			{"My sessions", "backend.ai ps"},
			{"How did the last ones end?", "backend.ai ps --dead -f name,status,status_info,terminated_at --order=-terminated_at --limit 5"},
			{"Remove all that run", "backend.ai rm $(backend.ai ps --running --name-only)"},
		},
		exits: [][2]string{{"4", "-f names a field that does not exist"}},
	})
}

func (o *sessionListOptions) run(ctx context.Context, e *env, c *client.Client) error {
	if err := o.check(); err != nil {
		return err
	}
	modern, err := c.Speaks(ctx, 7, "20230615")
	if err != nil {
		return err
	}
	statuses, err := o.statuses(modern)
	if err != nil {
		return err
	}
	usual, err := o.usual(ctx, c)
	if err != nil {
		return err
	}
	columns, err := o.columns(sessionColumns, usual)
	if err != nil {
		return err
	}
	args := map[string]client.Argument{"status": {Type: "String", Value: strings.Join(statuses, ",")}}
	if o.accessKey != "" {
		args["access_key"] = client.Argument{Type: "String", Value: o.accessKey}
	}
	return o.show(ctx, e, c, "compute_session_list", args, columns)
}

// usual are the columns without -f. Only administrators have a column for the owner.
func (o *sessionListOptions) usual(ctx context.Context, c *client.Client) ([]column, error) {
	if o.format != "" || o.nameOnly {
		return nil, nil
	}
	names := []string{"name"}
	admin, err := c.IsAdmin(ctx)
	if err != nil {
		return nil, err
	}
	if admin {
		names = append(names, "access_key")
	}
	newest, err := c.Speaks(ctx, 8, "20240915")
	if err != nil {
		return nil, err
	}
	slots := "occupied_slots"
	if newest {
		names, slots = append(names, "priority"), "occupying_slots"
	}
	names = append(names, "session_id", "group_name", "image", "type", "status", "status_info", "status_changed", "result")
	if o.detail {
		names = append(names, "tag", "created_at", slots)
	}
	return pick(sessionColumns, names...), nil
}

// statuses are those to ask for.
func (o *sessionListOptions) statuses(modern bool) ([]string, error) {
	live, running := liveStatuses, runningStatuses
	if !modern {
		live, running = liveStatusesV6, runningStatusesV6
	}
	switch {
	case o.running:
		return running, nil
	case o.dead:
		return deadStatuses, nil
	case o.all:
		return slices.Concat(live, deadStatuses), nil
	case o.status == "":
		return live, nil
	}
	chosen := split(strings.ToUpper(o.status))
	if slices.Contains(chosen, statusAll) {
		return slices.Concat(live, deadStatuses), nil
	}
	known := slices.Concat(liveStatuses, liveStatusesV6, deadStatuses, []string{"BUILDING"})
	for _, s := range chosen {
		if !slices.Contains(known, s) {
			return nil, usagef("-s %s: there is no status %q", o.status, s)
		}
	}
	return chosen, nil
}
