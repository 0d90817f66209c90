package graphql

import (
	"encoding/json"
	"fmt"
	"time"
)

// jsonString is a string that holds JSON.
type jsonString string

// ImplementsGraphQLType names the scalar.
func (jsonString) ImplementsGraphQLType(name string) bool { return name == "JSONString" }

// UnmarshalGraphQL reads an argument.
func (s *jsonString) UnmarshalGraphQL(input any) error { return readText((*string)(s), input) }

// jsonOf is a value of the server's own types, which always has a JSON form.
func jsonOf(v any) jsonString {
	b, err := json.Marshal(v)
	if err != nil {
		return "{}"
	}
	return jsonString(b)
}

// uuid is the scalar UUID, in its dashed form.
type uuid string

// ImplementsGraphQLType names the scalar.
func (uuid) ImplementsGraphQLType(name string) bool { return name == "UUID" }

// UnmarshalGraphQL reads an argument.
func (u *uuid) UnmarshalGraphQL(input any) error { return readText((*string)(u), input) }

func readText(to *string, input any) error {
	s, ok := input.(string)
	if !ok {
		return fmt.Errorf("%v is not a text", input)
	}
	*to = s
	return nil
}

// dateTime is the scalar DateTime.
type dateTime struct{ time.Time }

// ImplementsGraphQLType names the scalar.
func (dateTime) ImplementsGraphQLType(name string) bool { return name == "DateTime" }

// UnmarshalGraphQL reads an argument.
func (d *dateTime) UnmarshalGraphQL(input any) error {
	var s string
	if err := readText(&s, input); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339, s)
	d.Time = t
	return err
}

// MarshalJSON writes UTC with a numeric zone, as the protocol's servers do.
func (d dateTime) MarshalJSON() ([]byte, error) {
	return json.Marshal(d.UTC().Format("2006-01-02T15:04:05.999999-07:00"))
}

// when is nil for a time that has not come.
func when(t time.Time) *dateTime {
	if t.IsZero() {
		return nil
	}
	return &dateTime{t}
}

// bigInt is the scalar BigInt, a JSON number.
type bigInt int64

// ImplementsGraphQLType names the scalar.
func (bigInt) ImplementsGraphQLType(name string) bool { return name == "BigInt" }

// UnmarshalGraphQL reads an argument.
func (i *bigInt) UnmarshalGraphQL(input any) error {
	switch v := input.(type) {
	case int32:
		*i = bigInt(v)
	case float64:
		*i = bigInt(v)
	default:
		return fmt.Errorf("%v is not a number", input)
	}
	return nil
}
