package graphql

import (
	"slices"
	"time"

	"backendai/internal/filter"
)

// field is what a filter or an order may name of the objects of a list.
type field[T any] struct {
	kind filter.Kind
	of   func(T) any
}

func texts[T any](of func(T) string) field[T] {
	return field[T]{filter.Text, func(v T) any { return of(v) }}
}

func flags[T any](of func(T) bool) field[T] {
	return field[T]{filter.Bool, func(v T) any { return of(v) }}
}

func times[T any](of func(T) *dateTime) field[T] {
	return field[T]{filter.Time, func(v T) any {
		if t := of(v); t != nil {
			return t.Time
		}
		return time.Time{}
	}}
}

// pick gives the page of those objects that the filter lets through, and how
// many these are. Objects are filtered as they are shown.
func pick[T any](p page, all []T, fields map[string]field[T]) (items []T, total int32, err error) {
	if err := p.check(); err != nil {
		return nil, 0, err
	}
	kinds := filter.Fields{}
	for name, f := range fields {
		kinds[name] = f.kind
	}
	expr, err := filter.Parse(text(p.Filter), kinds)
	if err != nil {
		return nil, 0, err
	}
	keys, err := filter.ParseOrder(text(p.Order), kinds)
	if err != nil {
		return nil, 0, err
	}
	values := func(v T) func(string) any { return func(name string) any { return fields[name].of(v) } }
	all = slices.DeleteFunc(all, func(v T) bool { return !expr.Match(values(v)) })
	slices.SortStableFunc(all, func(a, b T) int { return filter.Compare(keys, values(a), values(b)) })
	return cut(p, all), int32(len(all)), nil
}

// keyPairFields have the names of the protocol's type KeyPair.
var keyPairFields = map[string]field[*keyPair]{
	"user_id":         texts(func(k *keyPair) string { return k.UserInfo.Email }),
	"email":           texts(func(k *keyPair) string { return k.UserInfo.Email }),
	"full_name":       texts(func(k *keyPair) string { return k.UserInfo.FullName }),
	"access_key":      texts(func(k *keyPair) string { return k.AccessKey }),
	"resource_policy": texts(func(k *keyPair) string { return k.ResourcePolicy }),
	"is_active":       flags(func(k *keyPair) bool { return k.IsActive }),
	"is_admin":        flags(func(k *keyPair) bool { return k.IsAdmin }),
	"created_at":      times(func(k *keyPair) *dateTime { return k.CreatedAt }),
	"last_used":       times(func(k *keyPair) *dateTime { return k.LastUsed }),
	"rate_limit":      {filter.Number, func(k *keyPair) any { return float64(k.RateLimit) }},
}

// userFields have the names of the protocol's type User.
var userFields = map[string]field[*user]{
	"uuid":        texts(func(u *user) string { return string(u.UUID) }),
	"username":    texts(func(u *user) string { return u.Username }),
	"email":       texts(func(u *user) string { return u.Email }),
	"full_name":   texts(func(u *user) string { return u.FullName }),
	"description": texts(func(u *user) string { return u.Description }),
	"status":      texts(func(u *user) string { return u.Status }),
	"domain_name": texts(func(u *user) string { return u.DomainName }),
	"role":        texts(func(u *user) string { return u.Role }),
	"is_active":   flags(func(u *user) bool { return u.IsActive }),
	"created_at":  times(func(u *user) *dateTime { return u.CreatedAt }),
}
