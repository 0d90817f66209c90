package client

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"backendai"
)

// Row is one thing of an answer, by the names of the fields that were asked for.
type Row map[string]any

// Argument is one argument of a query: its GraphQL type and its value.
type Argument struct {
	Type  string
	Value any
}

// ListRequest asks for one page of a list (API section 9).
type ListRequest struct {
	Query  string // such as compute_session_list
	Args   map[string]Argument
	Fields []string
	Filter string
	Order  string
	Offset int
	Limit  int
}

// List gives one page and how many things there are on all pages.
func (c *Client) List(ctx context.Context, r ListRequest) (items []Row, total int, err error) {
	args := maps.Clone(r.Args)
	if args == nil {
		args = map[string]Argument{}
	}
	args["limit"], args["offset"] = Argument{"Int!", r.Limit}, Argument{"Int!", r.Offset}
	if r.Filter != "" {
		args["filter"] = Argument{"String", r.Filter}
	}
	if r.Order != "" {
		args["order"] = Argument{"String", r.Order}
	}
	var page struct {
		Items []Row `json:"items"`
		Total int   `json:"total_count"`
	}
	err = c.field(ctx, "query", r.Query, args, "items { "+strings.Join(r.Fields, " ")+" } total_count", &page)
	return page.Items, page.Total, err
}

// One gives one thing, or nil when there is none.
func (c *Client) One(ctx context.Context, query string, args map[string]Argument, fields []string) (Row, error) {
	var row Row
	err := c.field(ctx, "query", query, args, strings.Join(fields, " "), &row)
	return row, err
}

// All gives a list that has no pages.
func (c *Client) All(ctx context.Context, query string, args map[string]Argument, fields []string) ([]Row, error) {
	var rows []Row
	err := c.field(ctx, "query", query, args, strings.Join(fields, " "), &rows)
	return rows, err
}

// Mutate changes something and gives what selection asks for beside ok and msg.
// An answer that is not ok is an error.
func (c *Client) Mutate(ctx context.Context, mutation string, args map[string]Argument, selection string) (Row, error) {
	var row Row
	if err := c.field(ctx, "mutation", mutation, args, "ok msg "+selection, &row); err != nil {
		return nil, err
	}
	if ok, _ := row["ok"].(bool); !ok {
		msg, _ := row["msg"].(string)
		if msg == "" {
			msg = "the server refused " + mutation
		}
		return nil, backendai.Errorf(backendai.CodeGraphQL, "%s", msg)
	}
	return row, nil
}

// IsAdmin tells whether the caller's keypair is an administrator's.
func (c *Client) IsAdmin(ctx context.Context) (bool, error) {
	row, err := c.One(ctx, "keypair", nil, []string{"is_admin"})
	admin, _ := row["is_admin"].(bool)
	return admin, err
}

// field executes an operation of one top-level field.
func (c *Client) field(ctx context.Context, kind, name string, args map[string]Argument, selection string, into any) error {
	var declared, passed []string
	variables := map[string]any{}
	for _, arg := range slices.Sorted(maps.Keys(args)) {
		declared = append(declared, "$"+arg+": "+args[arg].Type)
		passed = append(passed, arg+": $"+arg)
		variables[arg] = args[arg].Value
	}
	query := kind + " { " + name + " { " + selection + " } }"
	if len(args) > 0 {
		query = kind + "(" + strings.Join(declared, ", ") + ") { " + name + "(" + strings.Join(passed, ", ") + ") { " + selection + " } }"
	}
	data, err := c.execute(ctx, query, variables)
	if err != nil {
		return err
	}
	value, ok := data[name]
	if !ok {
		return backendai.Errorf(backendai.CodeInternal, "the server's answer to the query has no %s", name)
	}
	d := json.NewDecoder(strings.NewReader(string(value)))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// execute sends a query to where servers of the negotiated version expect it.
func (c *Client) execute(ctx context.Context, query string, variables map[string]any) (map[string]json.RawMessage, error) {
	version, err := c.negotiateAny(ctx)
	if err != nil {
		return nil, err
	}
	k := call{method: http.MethodPost, json: map[string]any{"query": query, "variables": variables}}
	var data map[string]json.RawMessage
	if !version.atLeast(6, "20210815") {
		k.path = []string{"admin", "graphql"}
		return data, c.read(ctx, k, &data)
	}
	k.path = []string{"admin", "gql"}
	var answer struct {
		Data   map[string]json.RawMessage `json:"data"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := c.read(ctx, k, &answer); err != nil {
		return nil, err
	}
	if len(answer.Errors) > 0 {
		messages := make([]string, len(answer.Errors))
		for i, e := range answer.Errors {
			messages[i] = e.Message
		}
		return nil, backendai.Errorf(backendai.CodeGraphQL, "%s", strings.Join(messages, "\n"))
	}
	return answer.Data, nil
}
