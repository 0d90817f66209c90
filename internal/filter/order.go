package filter

import (
	"cmp"
	"strings"
	"time"
	"unicode/utf8"
)

// maxKeys bounds an order.
const maxKeys = 8

// Key is one field of an order.
type Key struct {
	Field      string
	Descending bool
}

// ParseOrder reads an order such as "+name,-created_at"; a name without a sign
// ascends. An empty text has no keys. Errors are CodeInvalidParams.
func ParseOrder(text string, fields Fields) ([]Key, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if len(text) > maxLength {
		return nil, tooLong("order")
	}
	var keys []Key
	at := 1
	for part := range strings.SplitSeq(text, ",") {
		name := strings.TrimSpace(part)
		here := at + utf8.RuneCountInString(part[:len(part)-len(strings.TrimLeft(part, " "))])
		at += utf8.RuneCountInString(part) + 1
		key := Key{Field: name}
		if name != "" && (name[0] == '+' || name[0] == '-') {
			key = Key{strings.TrimSpace(name[1:]), name[0] == '-'}
		}
		if key.Field == "" {
			return nil, wrong("order", here, "a field is missing")
		}
		if _, ok := fields[key.Field]; !ok {
			return nil, unknown("order", here, key.Field, fields)
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, wrong("order", here, "there are more than %d fields", maxKeys)
		}
	}
	return keys, nil
}

// Compare orders two objects, whose fields a and b give, by the keys: below
// zero when a comes first. Absent times come first.
func Compare(keys []Key, a, b func(field string) any) int {
	for _, k := range keys {
		c := compare(a(k.Field), b(k.Field))
		if k.Descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// compare orders two values of one kind.
func compare(a, b any) int {
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case float64:
		return cmp.Compare(a, b.(float64))
	case bool:
		return cmp.Compare(bit(a), bit(b.(bool)))
	case time.Time:
		t, _ := b.(time.Time)
		return a.Compare(t)
	default: // no time
		t, _ := b.(time.Time)
		return time.Time{}.Compare(t)
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
