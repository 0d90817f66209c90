// Package graphql answers the protocol's GraphQL queries (API section 9). The
// schema is a file beside this one; the resolvers translate the services'
// answers and decide nothing.
package graphql

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	gql "github.com/graph-gophers/graphql-go"
	gqlerrors "github.com/graph-gophers/graphql-go/errors"

	"backendai"
	"backendai/internal/account"
	"backendai/internal/session"
	"backendai/internal/vfolder"
)

//go:embed schema.graphql
var schemaText string

// The bounds of a query.
const (
	maxDepth      = 12
	maxQuery      = 32 << 10 // bytes
	maxParallel   = 8
	maxSelections = 2000
	maxPage       = 100 // objects of a list
)

// Images is what the queries need of the image store.
type Images interface {
	Resolve(ctx context.Context, name, architecture string) (backendai.Image, error)
	List(ctx context.Context) ([]backendai.Image, error)
	Alias(ctx context.Context, alias, target string) error
	Dealias(ctx context.Context, alias string) error
}

// Options are what the resolvers stand on; all are required.
type Options struct {
	Sessions session.API
	Accounts account.API
	Images   Images
	Folders  vfolder.API
	Capacity func(ctx context.Context) (backendai.Slots, error)
	Version  string    // of the server program
	Started  time.Time // of the server
	Logger   *slog.Logger
}

// Schema executes queries. It is safe for concurrent use.
type Schema struct {
	schema *gql.Schema
	log    *slog.Logger
}

// New checks that the schema and the resolvers fit together.
func New(opts Options) (*Schema, error) {
	s := &Schema{log: opts.Logger}
	var err error
	s.schema, err = gql.ParseSchema(schemaText+folderSchema, &resolver{opts}, gql.UseFieldResolvers(), gql.MaxDepth(maxDepth), gql.MaxQueryLength(maxQuery),
		gql.MaxParallelism(maxParallel), gql.MaxSelections(maxSelections), gql.PanicHandler(s), gql.Logger(s))
	if err != nil {
		return nil, fmt.Errorf("read GraphQL schema: %w", err)
	}
	return s, nil
}

// Execute runs one operation for the caller. The keys of data are in the order
// of the query. faults are one line each, for people; causes go to the log.
func (s *Schema) Execute(ctx context.Context, caller backendai.Caller, query, operation string, variables map[string]any) (data json.RawMessage, faults []string) {
	response := s.schema.Exec(context.WithValue(ctx, callerKey{}, caller), query, operation, variables)
	data = response.Data
	if data == nil {
		data = json.RawMessage("null")
	}
	for _, e := range response.Errors {
		faults = append(faults, s.fault(e))
	}
	return data, faults
}

// fault is the text of an error that a client may read.
func (s *Schema) fault(e *gqlerrors.QueryError) string {
	if e.ResolverError == nil {
		return e.Message // of the query itself
	}
	if known, ok := errors.AsType[*backendai.Error](e.ResolverError); ok {
		return sentence(known)
	}
	s.log.Error("query failed", "path", e.Path, "err", e.ResolverError)
	return "internal server error"
}

// sentence is an error with its hint in one line.
func sentence(e *backendai.Error) string {
	if e.Hint == "" {
		return e.Title
	}
	return e.Title + " (" + e.Hint + ")"
}

// MakePanicError keeps what a panic says from the client; LogPanic tells the log.
func (s *Schema) MakePanicError(context.Context, any) *gqlerrors.QueryError {
	return gqlerrors.Errorf("internal server error")
}

// LogPanic writes a resolver's panic to the log.
func (s *Schema) LogPanic(_ context.Context, value any) {
	s.log.Error("panic in query", "panic", value)
}

type callerKey struct{}

// callerOf is who asks; Execute puts it into every context.
func callerOf(ctx context.Context) backendai.Caller {
	caller, _ := ctx.Value(callerKey{}).(backendai.Caller)
	return caller
}

func superadminOnly(ctx context.Context) error {
	if !callerOf(ctx).Superadmin() {
		return backendai.Errorf(backendai.CodeForbidden, "only a superadmin may do this")
	}
	return nil
}

// resolver has the fields of Query and Mutation as methods; the executor finds
// them by name without underscores.
type resolver struct{ opts Options }

// page are the arguments of every list.
type page struct {
	Limit  int32
	Offset int32
	Filter *string
	Order  *string
}

// check bounds the page.
func (p page) check() error {
	if p.Limit < 0 || p.Limit > maxPage || p.Offset < 0 {
		return backendai.Errorf(backendai.CodeInvalidParams, "a page has 0 to %d objects and begins at 0 or later", maxPage)
	}
	return nil
}

// plain refuses what a list of one machine has no use for.
func (p page) plain() error {
	if text(p.Filter) != "" || text(p.Order) != "" {
		return backendai.Errorf(backendai.CodeInvalidParams, "this list takes neither a filter nor an order")
	}
	return p.check()
}

// cut gives the page of all objects.
func cut[T any](p page, all []T) []T {
	from := min(int(p.Offset), len(all))
	to := min(from+int(p.Limit), len(all))
	return all[from:to]
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func flag(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

// optional is nil for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// missing tells an error that means null: the object is not there for the caller.
func missing(err error) bool { return backendai.CodeOf(err) == backendai.CodeNotFound }
