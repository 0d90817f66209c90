package ttyd

import (
	"slices"
	"strconv"
	"strings"
)

// style is the graphic rendition (SGR) in force: one parameter string for each
// attribute that is set.
type style struct {
	fore, back, under string   // "31", "38;2;1;2;3", "38:5:9"
	flags             []string // "1", "4:3", …
}

func (s *style) clone() style {
	c := *s
	c.flags = slices.Clone(s.flags)
	return c
}

// off tells which flags a parameter ends.
var off = map[int][]int{22: {1, 2}, 23: {3}, 24: {4, 21}, 25: {5, 6}, 27: {7}, 28: {8}, 29: {9}, 55: {53}}

// apply takes the parameters of one SGR sequence.
func (s *style) apply(body string) {
	fields := strings.Split(body, ";")
	for i := 0; i < len(fields); i++ {
		field := fields[i]
		number, sub, extended := strings.Cut(field, ":")
		n, _ := strconv.Atoi(number) // an empty parameter is 0
		if !extended && (n == 38 || n == 48 || n == 58) {
			length := 1
			if i+1 < len(fields) {
				length = map[string]int{"5": 3, "2": 5}[fields[i+1]]
			}
			if length < 3 || i+length > len(fields) {
				return // broken: the emulator ignores the rest as well
			}
			field = strings.Join(fields[i:i+length], ";")
			i += length - 1
		}
		if n == 4 && sub == "0" {
			n = 24
		}
		s.attribute(n, field)
	}
}

func (s *style) attribute(n int, field string) {
	switch {
	case n == 0:
		*s = style{}
	case n >= 30 && n <= 38 || n >= 90 && n <= 97:
		s.fore = field
	case n == 39:
		s.fore = ""
	case n >= 40 && n <= 48 || n >= 100 && n <= 107:
		s.back = field
	case n == 49:
		s.back = ""
	case n == 58:
		s.under = field
	case n == 59:
		s.under = ""
	case n <= 9 || n == 21 || n == 53:
		s.drop(n)
		s.flags = append(s.flags, field)
	default:
		s.drop(off[n]...)
	}
}

func (s *style) drop(numbers ...int) {
	s.flags = slices.DeleteFunc(s.flags, func(flag string) bool {
		number, _, _ := strings.Cut(flag, ":")
		n, _ := strconv.Atoi(number)
		return slices.Contains(numbers, n)
	})
}

// restore is the sequence that sets the style anew, "" for none.
func (s *style) restore() string {
	var b strings.Builder
	for _, field := range slices.Concat(s.flags, []string{s.fore, s.back, s.under}) {
		if field != "" {
			b.WriteString("\x1b[" + field + "m")
		}
	}
	return b.String()
}
