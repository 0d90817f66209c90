package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"backendai"
	"backendai/internal/client"
)

// column is a field of a list or a detail: its name on the command line, and
// what is asked of the server for it.
type column struct {
	name   string
	title  string // "" derives it from the name
	query  string // the selection of GraphQL; "" is the name
	format func(any) string
	json   bool // the server sends text that holds JSON
}

// titles that are not just the name in title case (CLI reference 1.1).
var titles = map[string]string{
	"session_id": "Session ID", "id": "ID", "group_name": "Project/Group", "access_key": "Owner Access Key",
	"status_changed": "Last Updated", "concurrency_used": "Concur.Used", "resource_policy": "Res.Policy", "uuid": "UUID",
	"user_id": "Email", "container_id": "Container ID", "size_bytes": "Size", "cpu_cur_pct": "CPU Usage (%)",
	"mem_cur_bytes": "Used Memory", "is_active": "Active", "is_admin": "Admin",
}

func (c column) heading() string {
	if c.title != "" {
		return c.title
	}
	if t, ok := titles[c.name]; ok {
		return t
	}
	words := strings.Split(c.name, "_")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, " ")
}

func (c column) selection() string {
	if c.query != "" {
		return c.query
	}
	return c.name
}

// value is the field of a row for programs.
func (c column) value(row client.Row) any {
	v := row[c.key()]
	if text, ok := v.(string); ok && c.json {
		var decoded any
		if json.Unmarshal([]byte(text), &decoded) == nil {
			return decoded
		}
	}
	return v
}

// key is the field's name in the answer: the selection without what is nested in it.
func (c column) key() string {
	name, _, _ := strings.Cut(c.selection(), " ")
	return name
}

// cell is the field of a row for people.
func (c column) cell(row client.Row) string {
	v := c.value(row)
	if c.format != nil && v != nil {
		return c.format(v)
	}
	return plainCell(v)
}

// plainCell writes a value as CLI reference 1.1 says.
func plainCell(v any) string {
	switch v := v.(type) {
	case nil:
		return "(null)"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case []any:
		if len(v) == 0 {
			return "(empty)"
		}
		cells := make([]string, len(v))
		for i, one := range v {
			cells[i] = plainCell(one)
		}
		return strings.Join(cells, ", ")
	case map[string]any:
		if len(v) == 0 {
			return "(empty)"
		}
		var cells []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			cells = append(cells, name+":"+plainCell(v[name]))
		}
		return strings.Join(cells, ", ")
	default:
		return fmt.Sprint(v)
	}
}

// slotsCell writes resource slots: cpu:1, mem:1GiB.
func slotsCell(v any) string {
	slots, ok := v.(map[string]any)
	if !ok || len(slots) == 0 {
		return plainCell(v)
	}
	var cells []string
	for _, name := range slices.Sorted(maps.Keys(slots)) {
		text := fmt.Sprint(slots[name])
		if size, err := backendai.ParseSize(text); err == nil && backendai.IsBytes(name) {
			text = backendai.FormatSize(size)
		}
		cells = append(cells, name+":"+text)
	}
	return strings.Join(cells, ", ")
}

// sizeCell writes a number of bytes.
func sizeCell(v any) string {
	if size, err := backendai.ParseSize(strings.TrimSuffix(fmt.Sprint(v), ".0")); err == nil {
		return backendai.FormatSize(size)
	}
	return plainCell(v)
}

// groupsCell writes the names of groups.
func groupsCell(v any) string {
	return nestedCell(v, func(o map[string]any) string { return fmt.Sprint(o["name"]) }, ", ")
}

func nestedCell(v any, one func(map[string]any) string, separator string) string {
	list, _ := v.([]any)
	if len(list) == 0 {
		return "(empty)"
	}
	cells := make([]string, 0, len(list))
	for _, entry := range list {
		object, _ := entry.(map[string]any)
		cells = append(cells, one(object))
	}
	return strings.Join(cells, separator)
}

// choose finds columns by the names of -f.
func choose(known []column, names string) ([]column, error) {
	var chosen []column
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(known, func(c column) bool { return c.name == name })
		if i < 0 {
			all := make([]string, len(known))
			for i, c := range known {
				all[i] = c.name
			}
			err := backendai.Errorf(backendai.CodeInvalidParams, "there is no field %q", name).WithHint("the fields are: %s", strings.Join(all, ", "))
			return nil, exitError{exitInvalid, err}
		}
		chosen = append(chosen, known[i])
	}
	return chosen, nil
}

// pick gives the columns of the names, all of which are known.
func pick(known []column, names ...string) []column {
	chosen := make([]column, 0, len(names))
	for _, name := range names {
		for _, c := range known {
			if c.name == name {
				chosen = append(chosen, c)
			}
		}
	}
	return chosen
}

func selections(columns []column) []string {
	fields := make([]string, len(columns))
	for i, c := range columns {
		fields[i] = c.selection()
	}
	return fields
}

// itemOf is a row for programs.
func itemOf(columns []column, row client.Row) item {
	i := make(item, len(columns))
	for n, c := range columns {
		i[n] = entry{c.name, c.value(row)}
	}
	return i
}
