package main

import (
	"cmp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"backendai/internal/client"
)

var agentColumns = []column{
	{name: "id"},
	{name: "status"},
	{name: "architecture"},
	{name: "scaling_group"},
	{name: "region"},
	{name: "first_contact"},
	{name: "cpu_cur_pct"},
	{name: "mem_cur_bytes", format: sizeCell},
	{name: "available_slots", format: slotsCell, json: true},
	{name: "occupied_slots", format: slotsCell, json: true},
	{name: "hardware_metadata", json: true},
	{name: "live_stat", json: true},
	{name: "local_config", json: true},
	{name: "version"},
	{name: "schedulable"},
}

// newAgentListCommand is "admin agent list".
func newAgentListCommand(e *env) *cobra.Command {
	var l listing
	var status, sgroup string
	cmd := &cobra.Command{
		Use: "list", Short: "List machines", Args: arguments(),
		Long: "Lists the machines that run sessions, with the resources that they have and those that sessions hold.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			columns, err := l.columns(agentColumns, agentColumns[:10])
			if err != nil {
				return err
			}
			args := map[string]client.Argument{"status": {Type: "String", Value: status}}
			if sgroup != "" {
				args["scaling_group"] = client.Argument{Type: "String", Value: sgroup}
			}
			return e.list(cmd.Context(), &l, "agent_list", args, columns)
		},
	}
	f := cmd.Flags()
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(cmp.Or(map[string]string{"sgroup": "scaling-group"}[name], name))
	})
	f.StringVarP(&status, "status", "s", "ALIVE", "show machines of the `STATUS`: ALIVE, LOST, RESTARTING or TERMINATED")
	f.StringVar(&sgroup, "scaling-group", "", "show machines of the group with the `NAME` (also --sgroup); without it of all")
	l.flags(cmd, agentColumns)
	return document(cmd, manual{
		examples: [][2]string{{"What is free?", "backend.ai admin agent list -f id,available_slots,occupied_slots"}},
		exits:    [][2]string{{"4", "-f names a field that does not exist"}},
	})
}

// newAgentInfoCommand is "admin agent info".
func newAgentInfoCommand(e *env) *cobra.Command {
	return document(&cobra.Command{
		Use: "info ID", Short: "Show all about a machine", Args: arguments("ID"),
		Long: "Shows all that is known of a machine that runs sessions.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			columns := pick(agentColumns, "id", "status", "region", "architecture", "first_contact", "cpu_cur_pct", "available_slots", "occupied_slots", "hardware_metadata", "live_stat", "local_config")
			row, err := c.One(cmd.Context(), "agent", map[string]client.Argument{"agent_id": {Type: "String!", Value: args[0]}}, selections(columns))
			if err != nil {
				return err
			}
			return showOne(e, columns, row, "agent", args[0])
		},
	}, manual{
		arguments: [][2]string{{"ID", "id of the machine, as 'backend.ai admin agent list' shows it"}},
		examples:  [][2]string{{"The machine of a small server", "backend.ai admin agent info i-local"}},
	})
}
