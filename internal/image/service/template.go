package service

import (
	"fmt"
	"strconv"
	"strings"
)

// maxExpansion bounds what one template may become, in bytes, because a
// variable can be used many times in one text.
const maxExpansion = 1 << 20

// Value is what a template variable stands for: a text, a list or named fields.
type Value struct {
	text   string
	list   []string
	fields map[string]string
}

// Text is the value {name}.
func Text(s string) Value { return Value{text: s} }

// List is a value whose items are {name[0]}, {name[1]}, …
func List(items ...string) Value {
	return Value{text: "[" + strings.Join(items, ", ") + "]", list: items}
}

// Fields is a value whose parts are {name[key]}, such as the out and err of a command.
func Fields(fields map[string]string) Value { return Value{fields: fields} }

// Variables are what templates may name.
type Variables map[string]Value

// NewVariables makes the variables that every definition has: {ports}, the
// ports of the service inside the session; {runtime_path}, from the image's
// label (DefaultRuntimePath when empty); and {loopback}, the address that apps
// are reached on.
func NewVariables(ports []int, runtimePath, loopback string) Variables {
	items := make([]string, len(ports))
	for i, p := range ports {
		items[i] = strconv.Itoa(p)
	}
	if runtimePath == "" {
		runtimePath = DefaultRuntimePath
	}
	return Variables{"ports": List(items...), "runtime_path": Text(runtimePath), "loopback": Text(loopback)}
}

// Expand replaces the references in a template. {name}, {name[0]} and
// {name[key]} are references, {{ and }} are braces. ${{ name }} is a reference
// too if the variable exists; if it does not, then ${{NAME}} without spaces is
// the escaped form of the shell's ${NAME}, as older definitions write it. Every
// other reference to what does not exist is an error, and so is a lone brace.
func (v Variables) Expand(template string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(template); {
		if out.Len() > maxExpansion {
			return "", fmt.Errorf("expand template: the text grows beyond %d bytes", maxExpansion)
		}
		rest := template[i:]
		switch {
		case strings.HasPrefix(rest, "${{"):
			text, used, err := v.dollar(rest)
			if err != nil {
				return "", fmt.Errorf("expand template %q: %w", clip(template), err)
			}
			out.WriteString(text)
			i += used
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			out.WriteByte(rest[0])
			i += 2
		case rest[0] == '{':
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return "", fmt.Errorf("expand template %q: a { has no end; write {{ for a brace", clip(template))
			}
			text, err := v.lookup(rest[1:end])
			if err != nil {
				return "", fmt.Errorf("expand template %q: %w", clip(template), err)
			}
			out.WriteString(text)
			i += end + 1
		case rest[0] == '}':
			return "", fmt.Errorf("expand template %q: a } has no beginning; write }} for a brace", clip(template))
		default:
			next := strings.IndexAny(rest[1:], "${}")
			if next < 0 {
				next = len(rest) - 1
			}
			out.WriteString(rest[:next+1])
			i += next + 1
		}
	}
	return out.String(), nil
}

// dollar expands the ${{ at the beginning of s and tells how much of s it used.
func (v Variables) dollar(s string) (text string, used int, err error) {
	const open, end = "${{", "}}"
	n := strings.Index(s, end)
	if n < 0 {
		return "${", len(open), nil // the shell's ${, escaped; its } comes unescaped and fails on its own
	}
	inner := s[len(open):n]
	text, err = v.lookup(strings.TrimSpace(inner))
	switch {
	case err == nil:
		return text, n + len(end), nil
	case inner != strings.TrimSpace(inner):
		return "", 0, err
	default:
		return "${", len(open), nil
	}
}

// lookup finds name, name[index] or name[key].
func (v Variables) lookup(ref string) (string, error) {
	name, key, indexed := strings.Cut(ref, "[")
	value, ok := v[name]
	if !ok {
		return "", fmt.Errorf("there is no variable %q", clip(ref))
	}
	if !indexed {
		if value.fields != nil {
			return "", fmt.Errorf("variable %q has parts; name one as in {%s[out]}", name, name)
		}
		return value.text, nil
	}
	key, ok = strings.CutSuffix(key, "]")
	if !ok {
		return "", fmt.Errorf("reference %q is not of the form {name[key]}", clip(ref))
	}
	if value.fields != nil {
		if text, ok := value.fields[key]; ok {
			return text, nil
		}
		return "", fmt.Errorf("variable %q has no part %q", name, clip(key))
	}
	n, err := strconv.Atoi(key)
	if err != nil || n < 0 || n >= len(value.list) {
		return "", fmt.Errorf("variable %q has no item %q", name, clip(key))
	}
	return value.list[n], nil
}

// expandAll expands each of several templates.
func (v Variables) expandAll(templates []string) ([]string, error) {
	out := make([]string, len(templates))
	for i, t := range templates {
		text, err := v.Expand(t)
		if err != nil {
			return nil, err
		}
		out[i] = text
	}
	return out, nil
}

// clip keeps quotes in messages short.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
