package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"backendai"
	"backendai/internal/filter"
	"backendai/internal/session"
)

var _ session.Store = (*Store)(nil)

// detail is what of a session no query looks for. The names are those in the
// database: they stay when the Go ones change.
type detail struct {
	UserEmail     string                   `json:"user_email,omitempty"`
	UserName      string                   `json:"user_name,omitempty"`
	SSHPublicKey  string                   `json:"ssh_public_key,omitempty"`
	Requested     backendai.Slots          `json:"requested,omitempty"`
	Shmem         int64                    `json:"shmem,omitempty"`
	Environ       map[string]string        `json:"environ,omitempty"`
	Mounts        []backendai.Mount        `json:"mounts,omitempty"`
	PreopenPorts  []int                    `json:"preopen_ports,omitempty"`
	Bootstrap     string                   `json:"bootstrap,omitempty"`
	Startup       string                   `json:"startup,omitempty"`
	BatchTimeout  time.Duration            `json:"batch_timeout,omitempty"` // nanoseconds
	StartsAt      time.Time                `json:"starts_at,omitzero"`
	Dependencies  []string                 `json:"dependencies,omitempty"`
	CallbackURL   string                   `json:"callback_url,omitempty"`
	ClusterSize   int                      `json:"cluster_size,omitempty"`
	NoEgress      bool                     `json:"no_egress,omitempty"`
	StatusMessage string                   `json:"status_message,omitempty"`
	History       []backendai.StatusChange `json:"history,omitempty"`
	ExitCode      *int                     `json:"exit_code,omitempty"`
	Apps          []backendai.App          `json:"apps,omitempty"`
}

const (
	sessionColumns = `name, access_key, user_id, domain_name, group_name, type, image, architecture, tag, priority,
		status, status_info, status_changed, result, created_at, terminated_at, detail`
	selectSession = "SELECT id, " + sessionColumns + " FROM sessions"
	insertSession = "INSERT INTO sessions (" + sessionColumns + ", live, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	updateSession = "UPDATE sessions SET (" + sessionColumns + ", live) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?"
	holderOfName  = "SELECT id FROM sessions WHERE access_key = ? AND name = ? AND live"
)

// values are what insertSession and updateSession take.
func values(s *backendai.Session) ([]any, error) {
	d := detail{
		UserEmail: s.UserEmail, UserName: s.UserName, SSHPublicKey: s.SSHPublicKey,
		Requested: s.Requested, Shmem: s.Shmem, Environ: s.Environ, Mounts: s.Mounts, PreopenPorts: s.PreopenPorts,
		Bootstrap: s.Bootstrap, Startup: s.Startup, BatchTimeout: s.BatchTimeout, StartsAt: s.StartsAt.UTC(), Dependencies: s.Dependencies,
		CallbackURL: s.CallbackURL, ClusterSize: s.ClusterSize, NoEgress: s.NoEgress, StatusMessage: s.StatusMessage,
		ExitCode: s.ExitCode, Apps: s.Apps, History: make([]backendai.StatusChange, len(s.History)),
	}
	for i, step := range s.History {
		d.History[i] = backendai.StatusChange{Status: step.Status, At: step.At.UTC()}
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write session %s: %w", s.ID, err)
	}
	return []any{
		s.Name, s.AccessKey, s.UserID, s.Domain, s.Group, s.Type, s.Image, s.Architecture, s.Tag, s.Priority,
		s.Status, s.StatusInfo, nanoseconds(s.StatusChanged), s.Result, nanoseconds(s.CreatedAt), nanoseconds(s.TerminatedAt), string(text),
		!s.Status.Final(), s.ID,
	}, nil
}

// InsertSession implements session.Store.
func (s *Store) InsertSession(ctx context.Context, one *backendai.Session) error {
	return s.putSession(ctx, s.stmts.insertSession, one)
}

// UpdateSession implements session.Store.
func (s *Store) UpdateSession(ctx context.Context, one *backendai.Session) error {
	return s.putSession(ctx, s.stmts.updateSession, one)
}

func (s *Store) putSession(ctx context.Context, stmt *sql.Stmt, one *backendai.Session) error {
	row, err := values(one)
	if err != nil {
		return err
	}
	done, err := stmt.ExecContext(ctx, row...)
	s.wrote()
	if unique(err) {
		return s.nameTaken(ctx, one, err)
	}
	if err != nil {
		return failed("write session "+one.ID, err)
	}
	if n, err := done.RowsAffected(); err == nil && n == 0 {
		return backendai.NotFound("session", one.ID)
	}
	return nil
}

// nameTaken tells which live session has the name that one was to get.
func (s *Store) nameTaken(ctx context.Context, one *backendai.Session, cause error) error {
	var id string
	// From the writer, which has seen every change, also that of a moment ago.
	err := s.writer.QueryRowContext(ctx, holderOfName, one.AccessKey, one.Name).Scan(&id)
	switch {
	case err == nil && id != one.ID:
	case err == nil || errors.Is(err, sql.ErrNoRows):
		return failed("write session "+one.ID, cause) // the id is there twice
	default:
		return failed("write session "+one.ID, err)
	}
	e := backendai.Errorf(backendai.CodeSessionExists, "the session %q exists already", one.Name).
		WithHint("remove it first, or choose another name").
		WithData(map[string]string{"existingSessionId": id})
	e.Err = cause
	return e
}

// Session implements session.Store.
func (s *Store) Session(ctx context.Context, id string) (*backendai.Session, error) {
	one, err := scanSession(s.stmts.session.QueryRowContext(ctx, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, backendai.NotFound("session", id)
	}
	if err != nil {
		return nil, failed("read session "+id, err)
	}
	return one, nil
}

// FindSessions implements session.Store.
func (s *Store) FindSessions(ctx context.Context, q session.Query) (sessions []*backendai.Session, total int, err error) {
	where, args, err := sessionsWhere(q)
	if err != nil {
		return nil, 0, err
	}
	order, err := sessionsOrder(q.Order)
	if err != nil {
		return nil, 0, err
	}
	// One transaction, so that the page and the total are of the same moment.
	tx, err := s.reader.BeginTx(ctx, nil)
	if err != nil {
		return nil, 0, failed("find sessions", err)
	}
	defer func() { _ = tx.Rollback() }()
	page := ""
	paged := q.Limit > 0 || q.Offset > 0
	if paged {
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sessions"+where, args...).Scan(&total); err != nil {
			return nil, 0, failed("count sessions", err)
		}
		limit := q.Limit
		if limit <= 0 {
			limit = -1 // all
		}
		page = fmt.Sprintf(" LIMIT %d OFFSET %d", limit, max(0, q.Offset))
	}
	rows, err := tx.QueryContext(ctx, selectSession+where+order+page, args...)
	if err != nil {
		return nil, 0, failed("find sessions", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		one, err := scanSession(rows)
		if err != nil {
			return nil, 0, failed("find sessions", err)
		}
		sessions = append(sessions, one)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, failed("find sessions", err)
	}
	if !paged {
		total = len(sessions)
	}
	return sessions, total, nil
}

// sessionsWhere is the condition of a query, from " WHERE" on.
func sessionsWhere(q session.Query) (string, []any, error) {
	expr, err := filter.Parse(q.Filter, sessionFields.kinds())
	if err != nil {
		return "", nil, err
	}
	var parts []string
	var args []any
	add := func(part string, values ...any) { parts, args = append(parts, part), append(args, values...) }
	if q.AccessKey != "" {
		add("access_key = ?", q.AccessKey)
	}
	if q.UserID != "" {
		add("user_id = ?", q.UserID)
	}
	if len(q.Statuses) > 0 {
		live := true
		list := make([]any, len(q.Statuses))
		for i, status := range q.Statuses {
			list[i], live = status, live && !status.Final()
		}
		add("status IN (?"+strings.Repeat(", ?", len(list)-1)+")", list...)
		if live {
			add("live") // leads to the index of the few that are
		}
	}
	if expr != nil {
		text, values := sessionFields.where(expr)
		add(text, values...)
	}
	if len(parts) == 0 {
		return "", nil, nil
	}
	return " WHERE " + strings.Join(parts, " AND "), args, nil
}

// sessionsOrder is " ORDER BY" and what follows: the newest first, unless the
// caller wants another order, and always the same one.
func sessionsOrder(text string) (string, error) {
	keys, err := filter.ParseOrder(text, sessionFields.kinds())
	if err != nil {
		return "", err
	}
	if len(keys) == 0 {
		return " ORDER BY created_at DESC, seq DESC", nil
	}
	return " ORDER BY " + sessionFields.order(keys) + ", seq DESC", nil
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

func scanSession(row scanner) (*backendai.Session, error) {
	s := &backendai.Session{}
	var changed, created, terminated sql.NullInt64
	var text string
	err := row.Scan(&s.ID, &s.Name, &s.AccessKey, &s.UserID, &s.Domain, &s.Group, &s.Type, &s.Image, &s.Architecture, &s.Tag, &s.Priority,
		&s.Status, &s.StatusInfo, &changed, &s.Result, &created, &terminated, &text)
	if err != nil {
		return nil, err
	}
	var d detail
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return nil, fmt.Errorf("read detail of session %s: %w", s.ID, err)
	}
	s.StatusChanged, s.CreatedAt, s.TerminatedAt = moment(changed), moment(created), moment(terminated)
	s.UserEmail, s.UserName, s.SSHPublicKey = d.UserEmail, d.UserName, d.SSHPublicKey
	s.Requested, s.Shmem, s.Environ, s.Mounts, s.PreopenPorts = d.Requested, d.Shmem, d.Environ, d.Mounts, d.PreopenPorts
	s.Bootstrap, s.Startup, s.BatchTimeout, s.StartsAt, s.Dependencies = d.Bootstrap, d.Startup, d.BatchTimeout, d.StartsAt, d.Dependencies
	s.CallbackURL, s.ClusterSize, s.NoEgress, s.StatusMessage = d.CallbackURL, d.ClusterSize, d.NoEgress, d.StatusMessage
	s.History, s.ExitCode, s.Apps = d.History, d.ExitCode, d.Apps
	return s, nil
}

// nanoseconds is the database's form of a time.
func nanoseconds(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixNano(), Valid: !t.IsZero()}
}

// moment is the inverse of nanoseconds, in UTC.
func moment(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(0, n.Int64).UTC()
}
