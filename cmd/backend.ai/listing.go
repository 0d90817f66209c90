package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// pageRows is the most that servers give at once.
const pageRows = 100

// listing is what the options that all lists share say.
type listing struct {
	format   string
	plain    bool
	nameOnly bool
	filter   string
	order    string
	offset   int
	limit    int
}

// formFlags adds the options of how a list is written.
func (l *listing) formFlags(cmd *cobra.Command, known []column) {
	names := make([]string, len(known))
	for i, c := range known {
		names[i] = c.name
	}
	f := cmd.Flags()
	f.StringVarP(&l.format, "format", "f", "", "show the `FIELDS` of this comma list: "+strings.Join(names, ", "))
	f.BoolVar(&l.plain, "plain", false, "no header and no lines, for scripts")
}

// flags adds the options of a list that has pages.
func (l *listing) flags(cmd *cobra.Command, known []column) {
	l.formFlags(cmd, known)
	f := cmd.Flags()
	f.StringVar(&l.filter, "filter", "", "show only what fits the `EXPR`, such as 'name like \"a%\" & status == \"RUNNING\"'")
	f.StringVar(&l.order, "order", "", "sort by the `FIELDS` of this comma list, each with + (up) or - (down) before it")
	f.IntVar(&l.offset, "offset", 0, "leave out the first `N`; without it none")
	f.IntVar(&l.limit, "limit", 0, "show at most `N`; without it all")
}

func (l *listing) check() error {
	if l.offset < 0 || l.limit < 0 {
		return usagef("--offset and --limit are numbers of zero or more")
	}
	return nil
}

// columns are those of -f, or the default ones.
func (l *listing) columns(known, usual []column) ([]column, error) {
	if l.nameOnly {
		return pick(known, "name"), nil
	}
	if l.format == "" {
		return usual, nil
	}
	return choose(known, l.format)
}

// show fetches the pages of a list and writes them.
func (l *listing) show(ctx context.Context, e *env, c *client.Client, query string, args map[string]client.Argument, columns []column) error {
	r := client.ListRequest{Query: query, Args: args, Fields: selections(columns), Filter: l.filter, Order: l.order, Offset: l.offset}
	var rows []client.Row
	for {
		r.Limit = pageRows
		if l.limit > 0 {
			r.Limit = min(pageRows, l.limit-len(rows))
		}
		items, total, err := c.List(ctx, r)
		if err != nil {
			return err
		}
		rows = append(rows, items...)
		r.Offset += len(items)
		if len(items) < r.Limit || r.Offset >= total || l.limit > 0 && len(rows) >= l.limit {
			return l.write(e, columns, rows, total)
		}
	}
}

// write writes rows in the form that was asked for.
func (l *listing) write(e *env, columns []column, rows []client.Row, total int) error {
	if e.output == outputJSON {
		p := page{Count: len(rows), Total: total, Items: make([]item, len(rows))}
		for i, row := range rows {
			p.Items[i] = itemOf(columns, row)
		}
		return e.term.JSON(p)
	}
	header := make([]string, len(columns))
	cells := make([][]string, len(rows))
	for i, c := range columns {
		header[i] = c.heading()
	}
	for i, row := range rows {
		for _, c := range columns {
			cells[i] = append(cells[i], c.cell(row))
		}
	}
	switch {
	case l.plain || l.nameOnly:
		return e.term.Plain(cells)
	case len(rows) == 0:
		return e.term.Text("No matching items.\n")
	default:
		return e.term.Table(header, cells)
	}
}

// showOne writes one thing, or fails when it is not there.
func showOne(e *env, columns []column, row client.Row, object, name string) error {
	if row == nil {
		return backendai.NotFound(object, name)
	}
	if e.output == outputJSON {
		return e.term.JSON(page{1, 1, []item{itemOf(columns, row)}})
	}
	pairs := make([][2]string, len(columns))
	for i, c := range columns {
		pairs[i] = [2]string{c.heading(), c.cell(row)}
	}
	return e.term.Fields(pairs)
}

// list is a command that shows the pages of a list.
func (e *env) list(ctx context.Context, l *listing, query string, args map[string]client.Argument, columns []column) error {
	if err := l.check(); err != nil {
		return err
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	return l.show(ctx, e, c, query, args, columns)
}
