package service

import (
	"fmt"
	"strings"
)

// splitWords splits a command into words by the POSIX shell's quoting rules,
// without expanding anything.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	started := false
	var quote byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote == '\'' && c != '\'':
			word.WriteByte(c)
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\':
			i++
			if i == len(text) {
				return nil, fmt.Errorf("command %q ends in a backslash", clip(text))
			}
			// Inside double quotes a backslash quotes only these (POSIX 2.2.3).
			if quote == '"' && !strings.ContainsRune("$`\"\\\n", rune(text[i])) {
				word.WriteByte(c)
			}
			word.WriteByte(text[i])
			started = true
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, started = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("command %q has a quote without an end", clip(text))
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}
