package store

import (
	"strings"
	"time"

	"backendai/internal/filter"
)

// column is how a field of a filter is written in SQL. Texts are never NULL.
type column struct {
	sql  string
	kind filter.Kind
	form func(string) string // turns what users write into what is stored; nil keeps it
}

// columns are the fields that filters and orders of one kind of object may name.
type columns map[string]column

// sessionFields have the names of the protocol's type ComputeSession.
var sessionFields = columns{
	"id":             {sql: "id", form: strings.ToLower},
	"session_id":     {sql: "id", form: strings.ToLower},
	"main_kernel_id": {sql: "id", form: strings.ToLower},
	"name":           {sql: "name"},
	"access_key":     {sql: "access_key"},
	"user_id":        {sql: "user_id", form: strings.ToLower},
	"user_email":     {sql: "ifnull((SELECT email FROM users WHERE users.id = sessions.user_id), '')", form: strings.ToLower},
	"full_name":      {sql: "ifnull((SELECT full_name FROM users WHERE users.id = sessions.user_id), '')"},
	"domain_name":    {sql: "domain_name"},
	"group_id":       {sql: "group_name"}, // a group has no other id
	"group_name":     {sql: "group_name"},
	"type":           {sql: "type", form: strings.ToLower}, // the protocol shows it in capitals
	"image":          {sql: "image"},
	"architecture":   {sql: "architecture"},
	"tag":            {sql: "tag"},
	"priority":       {sql: "priority", kind: filter.Number},
	"status":         {sql: "status", form: strings.ToUpper},
	"status_info":    {sql: "status_info"},
	"status_changed": {sql: "status_changed", kind: filter.Time},
	"result":         {sql: "coalesce(nullif(result, ''), 'UNDEFINED')", form: strings.ToUpper},
	"created_at":     {sql: "created_at", kind: filter.Time},
	"terminated_at":  {sql: "terminated_at", kind: filter.Time},
}

// kinds are the fields as the language wants them.
func (c columns) kinds() filter.Fields {
	fields := make(filter.Fields, len(c))
	for name, col := range c {
		fields[name] = col.kind
	}
	return fields
}

// order writes the keys of an order; absent times come first, as they do in Go.
func (c columns) order(keys []filter.Key) string {
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = c[k.Field].sql
		if k.Descending {
			parts[i] += " DESC"
		}
	}
	return strings.Join(parts, ", ")
}

// where writes an expression as a condition in SQL; every value is an argument.
func (c columns) where(e *filter.Expr) (text string, args []any) {
	switch e.Op {
	case filter.And, filter.Or:
		word := map[filter.Op]string{filter.And: " AND ", filter.Or: " OR "}[e.Op]
		parts := make([]string, len(e.Args))
		for i, arg := range e.Args {
			part, more := c.where(arg)
			parts[i], args = part, append(args, more...)
		}
		return "(" + strings.Join(parts, word) + ")", args
	case filter.Not:
		part, args := c.where(e.Args[0])
		return "(NOT " + part + ")", args
	case filter.In:
		if len(e.Values) == 0 {
			return "(0)", nil
		}
		parts := make([]string, len(e.Values))
		for i, v := range e.Values {
			part, more := c[e.Field].compare(filter.Equal, v)
			parts[i], args = part, append(args, more...)
		}
		return "(" + strings.Join(parts, " OR ") + ")", args
	default:
		return c[e.Field].compare(e.Op, e.Values[0])
	}
}

// signs are the comparisons that SQL writes between two values.
var signs = map[filter.Op]string{
	filter.Equal: " = ?", filter.Unequal: " <> ?", filter.Greater: " > ?", filter.AtLeast: " >= ?", filter.Less: " < ?", filter.AtMost: " <= ?",
}

// compare writes one comparison. It is never NULL, so that NOT does as in Go.
func (c column) compare(op filter.Op, value any) (string, []any) {
	switch v := value.(type) {
	case nil: // no time
		if op == filter.Equal {
			return "(" + c.sql + " IS NULL)", nil
		}
		return "(" + c.sql + " IS NOT NULL)", nil
	case time.Time:
		if op == filter.Unequal {
			return "(" + c.sql + " IS NOT ?)", []any{v.UnixNano()}
		}
		return "(" + c.sql + " IS NOT NULL AND " + c.sql + signs[op] + ")", []any{v.UnixNano()}
	case string:
		if c.form != nil {
			v = c.form(v)
		}
		switch op {
		case filter.Contains:
			return "(instr(" + c.sql + ", ?) > 0)", []any{v}
		case filter.Like:
			return "(" + c.sql + " GLOB ?)", []any{glob(v)}
		case filter.ILike:
			return "(" + c.sql + ` LIKE ? ESCAPE '\')`, []any{complete(v)}
		}
		value = v
	}
	return "(" + c.sql + signs[op] + ")", []any{value}
}

// glob writes a pattern of like as one of GLOB, which minds the case.
func glob(pattern string) string {
	var b strings.Builder
	filter.Pattern(pattern, func(wild byte) {
		if wild == '%' {
			b.WriteByte('*')
		} else {
			b.WriteByte('?')
		}
	}, func(r rune) {
		if strings.ContainsRune("*?[", r) {
			b.WriteString("[" + string(r) + "]")
		} else {
			b.WriteRune(r)
		}
	})
	return b.String()
}

// complete escapes a pattern as SQLite wants it: no backslash at the end.
func complete(pattern string) string {
	var b strings.Builder
	filter.Pattern(pattern, func(wild byte) { b.WriteByte(wild) }, func(r rune) {
		if r == '%' || r == '_' || r == '\\' {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	})
	return b.String()
}
