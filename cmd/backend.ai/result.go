package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"backendai/internal/term"
)

// mutation is the result of a change for programs (CLI reference 1.1).
func mutation(item any, format string, args ...any) map[string]any {
	answer := map[string]any{"ok": true, "msg": term.Clean(fmt.Sprintf(format, args...))}
	if item != nil {
		answer["item"] = item
	}
	return answer
}

// page is a list for programs.
type page struct {
	Count int    `json:"count"`
	Total int    `json:"total_count"`
	Items []item `json:"items"`
}

// item is one thing as an object whose keys keep their order.
type item []entry

type entry struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (i item) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for n, e := range i {
		if n > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(e.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(e.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
