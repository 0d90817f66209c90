package filter

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"backendai"
)

// The bounds of a filter.
const (
	maxLength = 4 << 10 // bytes
	maxDepth  = 16      // of parentheses and negations
	maxTerms  = 64
	maxValues = 100 // of In
)

// Parse reads a filter whose fields are among those given. An empty text is
// nil, which matches everything. Errors are CodeInvalidParams and tell the
// position.
func Parse(text string, fields Fields) (*Expr, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if len(text) > maxLength {
		return nil, tooLong("filter")
	}
	p := &parser{text: []rune(text), fields: fields}
	for i, r := range p.text {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return nil, p.wrong(token{at: i}, "there is a control character")
		}
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	e, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokEnd {
		return nil, p.wrong(p.tok, "%s stands where & or | or the end is expected", p.tok)
	}
	return e, nil
}

type tokenKind int

const (
	tokEnd    tokenKind = iota
	tokWord             // a field, an operator of letters, or a value without quotes
	tokString           // a value in quotes
	tokOp               // a comparison of signs
	tokSign             // one of & | ! ( ) [ ] ,
)

type token struct {
	kind tokenKind
	text string
	at   int // of its first character, from 0
}

func (t token) String() string {
	if t.kind == tokEnd {
		return "the end"
	}
	return strconv.Quote(t.text)
}

func (t token) is(sign string) bool { return t.kind == tokSign && t.text == sign }

type parser struct {
	text   []rune
	pos    int
	tok    token // not consumed yet
	terms  int
	fields Fields
}

// advance reads the next token.
func (p *parser) advance() error {
	for p.pos < len(p.text) && unicode.IsSpace(p.text[p.pos]) {
		p.pos++
	}
	start := p.pos
	p.tok = token{at: start}
	if start == len(p.text) {
		return nil
	}
	switch r := p.text[start]; {
	case r == '"' || r == '\'':
		return p.quoted(r)
	case strings.ContainsRune("=!<>", r):
		p.pos++
		if p.pos < len(p.text) && p.text[p.pos] == '=' {
			p.pos++
		}
		p.tok.kind, p.tok.text = tokOp, string(p.text[start:p.pos])
		switch p.tok.text {
		case "!":
			p.tok.kind = tokSign
		case "=":
			return p.wrong(p.tok, "= is no operator; equality is ==")
		}
	case strings.ContainsRune("&|()[],", r):
		p.pos++
		p.tok.kind, p.tok.text = tokSign, string(r)
	case wordRune(r):
		for p.pos < len(p.text) && wordRune(p.text[p.pos]) {
			p.pos++
		}
		p.tok.kind, p.tok.text = tokWord, string(p.text[start:p.pos])
	default:
		return p.wrong(p.tok, "%q has no meaning here", r)
	}
	return nil
}

func wordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.:/@+-%*", r)
}

// quoted reads a text in quotes. A backslash keeps the meaning of a quote or a
// backslash from it and stays before any other character, for like.
func (p *parser) quoted(quote rune) error {
	var b strings.Builder
	for i := p.pos + 1; i < len(p.text); i++ {
		r := p.text[i]
		switch {
		case r == quote:
			p.tok.kind, p.tok.text = tokString, b.String()
			p.pos = i + 1
			return nil
		case r == '\\' && i+1 < len(p.text) && (p.text[i+1] == quote || p.text[i+1] == '\\'):
			i++
			r = p.text[i]
		}
		b.WriteRune(r)
	}
	return p.wrong(p.tok, "the text that begins here has no closing %c", quote)
}

func (p *parser) or(depth int) (*Expr, error) { return p.chain(Or, p.and, depth) }

func (p *parser) and(depth int) (*Expr, error) { return p.chain(And, p.unary, depth) }

// chain reads one or more expressions with the operator between them.
func (p *parser) chain(op Op, part func(int) (*Expr, error), depth int) (*Expr, error) {
	e, err := part(depth)
	if err != nil {
		return nil, err
	}
	for p.tok.is(string(op)) {
		if err := p.advance(); err != nil {
			return nil, err
		}
		more, err := part(depth)
		if err != nil {
			return nil, err
		}
		if e.Op != op {
			e = &Expr{Op: op, Args: []*Expr{e}}
		}
		e.Args = append(e.Args, more)
	}
	return e, nil
}

func (p *parser) unary(depth int) (*Expr, error) {
	if depth > maxDepth {
		return nil, p.wrong(p.tok, "there are more than %d levels", maxDepth)
	}
	switch {
	case p.tok.is("!"):
		if err := p.advance(); err != nil {
			return nil, err
		}
		e, err := p.unary(depth + 1)
		if err != nil {
			return nil, err
		}
		return &Expr{Op: Not, Args: []*Expr{e}}, nil
	case p.tok.is("("):
		open := p.tok
		if err := p.advance(); err != nil {
			return nil, err
		}
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if !p.tok.is(")") {
			return nil, p.wrong(p.tok, "the parenthesis of character %d is not closed before %s", open.at+1, p.tok)
		}
		return e, p.advance()
	default:
		return p.term()
	}
}

// term reads a comparison: field, operator, value.
func (p *parser) term() (*Expr, error) {
	field := p.tok
	if field.kind != tokWord {
		return nil, p.wrong(field, "%s stands where a field is expected", field)
	}
	kind, known := p.fields[field.text]
	if !known {
		return nil, unknown("filter", field.at+1, field.text, p.fields)
	}
	if p.terms++; p.terms > maxTerms {
		return nil, p.wrong(field, "there are more than %d comparisons", maxTerms)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	op := p.tok
	e := &Expr{Op: Op(strings.ToLower(op.text)), Field: field.text}
	switch e.Op {
	case Equal, Unequal, Greater, AtLeast, Less, AtMost, In:
	case Contains, Like, ILike:
		if kind != Text {
			return nil, p.wrong(op, "%s is for texts, which %s is not", e.Op, field.text)
		}
	default:
		return nil, p.wrong(op, "%s stands where an operator is expected", op)
	}
	if op.kind != tokOp && op.kind != tokWord {
		return nil, p.wrong(op, "%s stands where an operator is expected", op)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	var err error
	if e.Op == In {
		e.Values, err = p.list(field.text, kind)
		return e, err
	}
	value := p.tok
	v, err := p.value(field.text, kind)
	if err != nil {
		return nil, err
	}
	if v == nil && e.Op != Equal && e.Op != Unequal {
		return nil, p.wrong(value, "null is neither less nor more than anything")
	}
	e.Values = []any{v}
	return e, nil
}

// list reads the values of In: in brackets, in parentheses, or one alone.
func (p *parser) list(field string, kind Kind) ([]any, error) {
	end := ""
	switch {
	case p.tok.is("["):
		end = "]"
	case p.tok.is("("):
		end = ")"
	default:
		v, err := p.value(field, kind)
		return []any{v}, err
	}
	values := []any{}
	for {
		if err := p.advance(); err != nil { // over the bracket or the comma
			return nil, err
		}
		if len(values) == 0 && p.tok.is(end) {
			return values, p.advance()
		}
		if len(values) == maxValues {
			return nil, p.wrong(p.tok, "there are more than %d values", maxValues)
		}
		v, err := p.value(field, kind)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		switch {
		case p.tok.is(end):
			return values, p.advance()
		case !p.tok.is(","):
			return nil, p.wrong(p.tok, "%s stands where , or %s is expected", p.tok, end)
		}
	}
}

// value reads a value of the kind and goes past it.
func (p *parser) value(field string, kind Kind) (any, error) {
	t := p.tok
	if t.kind != tokString && t.kind != tokWord {
		return nil, p.wrong(t, "%s stands where a value is expected", t)
	}
	v, ok := convert(t, kind)
	if !ok {
		return nil, p.wrong(t, "%s is not %s, which %s is", t, kindNames[kind], field)
	}
	return v, p.advance()
}

var kindNames = map[Kind]string{
	Text: "a text", Number: "a number", Bool: "true or false", Time: "a time such as 2026-01-02T15:04:05Z",
}

var timeLayouts = []string{
	time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02",
}

// convert gives a value its kind; an unquoted null is an empty text or no time.
func convert(t token, kind Kind) (any, bool) {
	null := t.kind == tokWord && strings.EqualFold(t.text, "null")
	switch kind {
	case Number:
		f, err := strconv.ParseFloat(t.text, 64)
		return f, err == nil && f == f
	case Bool:
		return strings.EqualFold(t.text, "true"), strings.EqualFold(t.text, "true") || strings.EqualFold(t.text, "false")
	case Time:
		if null {
			return nil, true
		}
		for _, layout := range timeLayouts {
			if at, err := time.Parse(layout, t.text); err == nil && at.Year() > 1700 && at.Year() < 2200 {
				return at.UTC(), true
			}
		}
		return nil, false
	default:
		if null {
			return "", true
		}
		return t.text, true
	}
}

func (p *parser) wrong(t token, format string, args ...any) error {
	return wrong("filter", t.at+1, format, args...)
}

// wrong is the error of a filter or an order at a character, counted from 1.
func wrong(what string, at int, format string, args ...any) *backendai.Error {
	return backendai.Errorf(backendai.CodeInvalidParams, "the %s is wrong at character %d: %s", what, at, fmt.Sprintf(format, args...)).
		WithHint("%s", example[what])
}

var example = map[string]string{
	"filter": `a filter is made of comparisons such as status == "RUNNING", joined by & and |`,
	"order":  "an order is a list of fields such as +name,-created_at",
}

func unknown(what string, at int, field string, fields Fields) error {
	return wrong(what, at, "there is no field %q", field).
		WithHint("the fields are: %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
}

func tooLong(what string) error {
	return backendai.Errorf(backendai.CodeInvalidParams, "the %s has more than %s", what, backendai.FormatSize(maxLength))
}
