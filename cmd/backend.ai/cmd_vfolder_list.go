package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// folderColumns are the fields of a folder in lists.
var folderColumns = []column{
	{name: "host"}, {name: "name"}, {name: "id"}, {name: "created_at"}, {name: "last_used"}, {name: "creator"}, {name: "user_email", title: "Owner"},
	{name: "group"}, {name: "group_name"}, {name: "permission"}, {name: "ownership_type"}, {name: "usage_mode"}, {name: "status"}, {name: "cloneable"},
	{name: "num_files", title: "Files"}, {name: "cur_size", title: "Used", format: sizeCell}, {name: "max_size", title: "Quota", format: quotaCell},
}

// usualFolderColumns are those without -f.
var usualFolderColumns = []string{"name", "host", "status", "permission", "ownership_type", "creator", "group_name", "cur_size", "created_at"}

func quotaCell(v any) string {
	if fmt.Sprint(v) == "0" {
		return "none"
	}
	return sizeCell(v)
}

// newVFolderListCommand is "vfolder list" and "admin vfolder list".
func newVFolderListCommand(e *env, name string, aliases ...string) *cobra.Command {
	var l listing
	var project string
	var trash bool
	cmd := &cobra.Command{
		Use: name, Aliases: aliases, Short: "List folders", Args: arguments(),
		Long: "Lists the folders that you have: your own, those of your project, and those that others share with you. Superadmins see those of all users. In the form json the fields have the names that -f knows.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			columns, err := l.columns(folderColumns, pick(folderColumns, usualFolderColumns...))
			if err != nil {
				return err
			}
			if trash {
				return e.listTrash(cmd.Context(), &l, columns)
			}
			args := map[string]client.Argument{}
			if project != "" {
				args["group_id"] = client.Argument{Type: "UUID", Value: project}
			}
			return e.list(cmd.Context(), &l, "vfolder_list", args, columns)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&project, "group", "g", "", "show the folders of the project with the `ID`; without it all")
	f.BoolVar(&l.nameOnly, "name-only", false, "show the names only, one per line")
	f.BoolVar(&trash, "trash", false, "show the folders in the trash instead; without filter, order and pages")
	l.flags(cmd, folderColumns)
	return document(cmd, manual{
		examples: [][2]string{{"My folders", "backend.ai vfolder list"}, {"The largest first", "backend.ai vfolder list --order=-cur_size -f name,cur_size,num_files"}, {"What can be restored?", "backend.ai vfolder list --trash"}},
		exits:    [][2]string{{"4", "-f names a field that does not exist"}},
	})
}

// listTrash shows what is in the trash.
func (e *env) listTrash(ctx context.Context, l *listing, columns []column) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	folders, err := c.TrashedFolders(ctx)
	if err != nil {
		return err
	}
	rows := make([]client.Row, len(folders))
	for i, f := range folders {
		text, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("list folders: %w", err)
		}
		if err := json.Unmarshal(text, &rows[i]); err != nil {
			return fmt.Errorf("list folders: %w", err)
		}
		rows[i]["group_name"], rows[i]["cur_size"], rows[i]["num_files"] = rows[i]["group"], f.CurSize, f.Files
	}
	return l.write(e, columns, rows, len(rows))
}

// newVFolderOwnListCommand is one of the lists of some of the folders.
func newVFolderOwnListCommand(e *env, name, query, short, long string) *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use: name, Short: short, Args: arguments(), Long: long,
		RunE: func(cmd *cobra.Command, _ []string) error {
			columns, err := l.columns(folderColumns, pick(folderColumns, usualFolderColumns...))
			if err != nil {
				return err
			}
			return e.list(cmd.Context(), &l, query, nil, columns)
		},
	}
	l.flags(cmd, folderColumns)
	return document(cmd, manual{
		examples: [][2]string{{"All of them", "backend.ai vfolder " + name}},
		exits:    [][2]string{{"4", "-f names a field that does not exist"}},
	})
}
