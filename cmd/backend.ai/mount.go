package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"backendai"
)

// token is one character of a mount; a quoted one stands for itself.
type token struct {
	char   rune
	quoted bool
}

// longKeys are the words that begin the long form of a mount.
var longKeys = []string{"type", "source", "src", "target", "dst", "destination", "perm", "permission"}

// parseMount reads one folder to mount:
//
//	NAME                        at /home/work/NAME
//	NAME=PATH or NAME:PATH      at PATH, below /home/work unless it is absolute
//	type=bind,source=NAME[,target=PATH][,perm=ro|rw|wd]
//
// A backslash takes the meaning of the character after it, and quotes that of
// all that stands between them. The target is empty when it is not given.
func parseMount(text string) (backendai.Mount, error) {
	var m backendai.Mount
	tokens, err := mountTokens(text)
	if err == nil {
		if key, _, found := cut(tokens, '='); found && slices.Contains(longKeys, literal(key)) {
			m, err = longMount(tokens)
		} else {
			m, err = shortMount(tokens)
		}
	}
	if err == nil && m.Source == "" {
		err = errors.New("it names no folder")
	}
	if err != nil {
		return backendai.Mount{}, fmt.Errorf("mount %q: %w", text, err)
	}
	return m, nil
}

func mountTokens(text string) (tokens []token, err error) {
	var quote rune
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			tokens, escaped = append(tokens, token{r, true}), false
		case r == '\\':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			tokens = append(tokens, token{r, true})
		case r == '"' || r == '\'':
			quote = r
		default:
			tokens = append(tokens, token{r, false})
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if escaped {
		return nil, errors.New("it ends in a backslash")
	}
	return tokens, nil
}

// cut splits at the first separator that is not quoted.
func cut(tokens []token, separator rune) (before, after []token, found bool) {
	i := slices.Index(tokens, token{separator, false})
	if i < 0 {
		return tokens, nil, false
	}
	return tokens[:i], tokens[i+1:], true
}

func literal(tokens []token) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteRune(t.char)
	}
	return b.String()
}

func shortMount(tokens []token) (backendai.Mount, error) {
	source, target, found := cut(tokens, '=')
	if !found {
		source, target, found = cut(tokens, ':')
	}
	if found && len(target) == 0 {
		return backendai.Mount{}, errors.New("the path after the name is empty")
	}
	if slices.Contains(target, token{':', false}) {
		return backendai.Mount{}, errors.New("there is a second colon; write type=bind,source=NAME,target=PATH,perm=ro for a permission, or a backslash before the colon")
	}
	return backendai.Mount{Source: literal(source), Target: literal(target)}, nil
}

func longMount(tokens []token) (m backendai.Mount, err error) {
	for more := true; more; {
		var field []token
		field, tokens, more = cut(tokens, ',')
		key, value, found := cut(field, '=')
		text := literal(value)
		switch name := literal(key); {
		case !found:
			return m, fmt.Errorf("%q has no value", name)
		case name == "type" && text != "bind":
			return m, fmt.Errorf("the type %q is not bind", text)
		case name == "type":
		case name == "source" || name == "src":
			m.Source = text
		case name == "target" || name == "dst" || name == "destination":
			m.Target = text
		case name == "perm" || name == "permission":
			if !slices.Contains([]string{"ro", "rw", "wd"}, text) {
				return m, fmt.Errorf("the permission %q is none of ro, rw and wd", text)
			}
			m.Permission = text
		default:
			return m, fmt.Errorf("there is no key %q; the keys are type, source, target and perm", name)
		}
	}
	return m, nil
}
