// Package filter is the small language in which list queries of the protocol
// say what they want and in which order (API section 9):
//
//	status == "RUNNING" & (name like "train%" | priority >= 10)
//	+name,-created_at
//
// It knows no database: the caller says which fields there are, and either
// matches values in memory or writes the parsed expression in its own language.
package filter

import (
	"strings"
	"time"
)

// Kind is what the values of a field are.
type Kind int

// The kinds, and what stands for a value of theirs in Term.Values and Match.
const (
	Text   Kind = iota // string
	Number             // float64
	Time               // time.Time; nil or the zero time when there is none
	Bool               // bool
)

// Fields are the fields that a filter or an order may name.
type Fields map[string]Kind

// Op is what a node of an expression does.
type Op string

// The operators. And, Or and Not join expressions, the others compare a field.
const (
	And      Op = "&"
	Or       Op = "|"
	Not      Op = "!"
	Equal    Op = "=="
	Unequal  Op = "!="
	Greater  Op = ">"
	AtLeast  Op = ">="
	Less     Op = "<"
	AtMost   Op = "<="
	Contains Op = "contains" // the text has the value in it
	Like     Op = "like"     // % is any text, _ any character, \ takes their meaning away
	ILike    Op = "ilike"    // like, without regard to the case of a to z
	In       Op = "in"       // is one of the values
)

// Expr is a parsed filter. A nil Expr matches everything.
type Expr struct {
	Op     Op
	Args   []*Expr // of And, Or and Not
	Field  string  // of a comparison
	Values []any   // one of the field's kind; any number with In; nil, with Equal and Unequal, is an absent time
}

// Match tells whether the object whose fields value gives is one of those asked for.
func (e *Expr) Match(value func(field string) any) bool {
	if e == nil {
		return true
	}
	switch e.Op {
	case And:
		for _, arg := range e.Args {
			if !arg.Match(value) {
				return false
			}
		}
		return true
	case Or:
		for _, arg := range e.Args {
			if arg.Match(value) {
				return true
			}
		}
		return false
	case Not:
		return !e.Args[0].Match(value)
	case In:
		for _, v := range e.Values {
			if holds(Equal, value(e.Field), v) {
				return true
			}
		}
		return false
	default:
		return holds(e.Op, value(e.Field), e.Values[0])
	}
}

// holds compares a field's value with that of the filter.
func holds(op Op, have, want any) bool {
	switch op {
	case Contains:
		return strings.Contains(have.(string), want.(string))
	case Like:
		return like(want.(string), have.(string))
	case ILike:
		return like(lower(want.(string)), lower(have.(string)))
	}
	none := absent(have)
	if none || absent(want) {
		return op == Equal && none == absent(want) || op == Unequal && none != absent(want)
	}
	c := compare(have, want)
	switch op {
	case Equal:
		return c == 0
	case Unequal:
		return c != 0
	case Greater:
		return c > 0
	case AtLeast:
		return c >= 0
	case Less:
		return c < 0
	default: // AtMost
		return c <= 0
	}
}

func absent(v any) bool {
	t, ok := v.(time.Time)
	return v == nil || ok && t.IsZero()
}

// lower folds the letters that databases fold too.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}

// like matches a whole text with a pattern, in time bounded by the product of
// their lengths.
func like(pattern, text string) bool {
	p, s := []rune(pattern), []rune(text)
	pi, si := 0, 0
	star, mark := -1, 0 // where to go on when the text after the last % did not fit
	for si < len(s) {
		r, n, kind := next(p, pi)
		switch {
		case kind == '%':
			star, mark = pi+n, si
			pi += n
			continue
		case kind == '_' || kind == 'c' && r == s[si]:
			pi, si = pi+n, si+1
			continue
		case star < 0:
			return false
		}
		mark++
		pi, si = star, mark
	}
	for pi < len(p) && p[pi] == '%' {
		pi++
	}
	return pi == len(p)
}

// next reads one element of a pattern: the wildcard '%' or '_', a character
// ('c'), or the end (0).
func next(p []rune, i int) (r rune, length int, kind byte) {
	switch {
	case i >= len(p):
		return 0, 0, 0
	case p[i] == '\\' && i+1 < len(p):
		return p[i+1], 2, 'c'
	case p[i] == '%' || p[i] == '_':
		return p[i], 1, byte(p[i])
	default:
		return p[i], 1, 'c'
	}
}

// Pattern gives the elements of a Like pattern in order: its wildcards go to
// wild as '%' or '_', its characters to literal. Writers of other languages use it.
func Pattern(pattern string, wild func(byte), literal func(rune)) {
	p := []rune(pattern)
	for i := 0; i < len(p); {
		r, n, kind := next(p, i)
		if kind == 'c' {
			literal(r)
		} else {
			wild(kind)
		}
		i += n
	}
}
