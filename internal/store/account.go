package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"backendai"
	"backendai/internal/account"
)

var _ account.Store = (*Store)(nil)

const (
	userColumns   = "email, username, full_name, role, domain_name, group_name, description, active, created_at"
	selectUser    = "SELECT id, " + userColumns + " FROM users"
	insertUser    = "INSERT INTO users (" + userColumns + ", id, password_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	updateUser    = "UPDATE users SET (" + userColumns + ") = (?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?"
	selectKeypair = `SELECT access_key, secret_key, user_id, users.email, keypairs.active, admin, resource_policy, ssh_public_key, rate_limit,
		keypairs.created_at, last_used FROM keypairs JOIN users ON users.id = user_id`
	insertKeypair = `INSERT INTO keypairs (access_key, secret_key, user_id, active, admin, resource_policy, rate_limit, created_at, last_used)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`
	updateKeypair = "UPDATE keypairs SET active = ?, admin = ?, resource_policy = ?, rate_limit = ? WHERE access_key = ?"
)

// Where secrets are sealed for: see seal.
func secretPlace(accessKey string) string { return "secret key of " + accessKey }
func sshPlace(accessKey string) string    { return "SSH key of " + accessKey }

// InsertUser implements account.Store.
func (s *Store) InsertUser(ctx context.Context, u *backendai.User, passwordHash string, k *backendai.Keypair) error {
	defer s.wrote()
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return failed("insert user", err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, insertUser, append(userValues(u), passwordHash)...); err != nil {
		if unique(err) {
			return taken(ctx, tx, u, err)
		}
		return failed("insert user", err)
	}
	if err := s.putKeypair(ctx, tx, k); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return failed("insert user", err)
	}
	return nil
}

// UpdateUser implements account.Store.
func (s *Store) UpdateUser(ctx context.Context, u *backendai.User) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, updateUser, userValues(u)...)
	if unique(err) {
		return taken(ctx, s.writer, u, err)
	}
	return one(done, err, "user", u.ID)
}

// userValues are what updateUser takes, and insertUser before the hash.
func userValues(u *backendai.User) []any {
	return []any{u.Email, u.Username, u.FullName, u.Role, u.Domain, u.Group, u.Description, u.Active, nanoseconds(u.CreatedAt), u.ID}
}

// querier is a transaction or a pool.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// taken tells which name of a user another one has.
func taken(ctx context.Context, db querier, u *backendai.User, cause error) error {
	what, value, field := "user name", u.Username, "username"
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM users WHERE email = ? AND id <> ?", u.Email, u.ID).Scan(&n); err != nil {
		return failed("find user", err)
	}
	if n > 0 {
		what, value, field = "e-mail address", u.Email, "email"
	}
	e := backendai.Errorf(backendai.CodeInvalidParams, "there is a user with the %s %q already", what, value).
		WithData(map[string]string{field: "is taken"})
	e.Err = cause
	return e
}

// one is the error of a change of one object.
func one(done sql.Result, err error, object, name string) error {
	if err != nil {
		return failed("write "+object, err)
	}
	if n, err := done.RowsAffected(); err == nil && n == 0 {
		return backendai.NotFound(object, name)
	}
	return nil
}

// User implements account.Store.
func (s *Store) User(ctx context.Context, id string) (*backendai.User, error) {
	return s.user(ctx, s.stmts.user, id)
}

// UserByEmail implements account.Store.
func (s *Store) UserByEmail(ctx context.Context, email string) (*backendai.User, error) {
	return s.user(ctx, s.stmts.userByEmail, email)
}

func (s *Store) user(ctx context.Context, stmt *sql.Stmt, name string) (*backendai.User, error) {
	u, err := scanUser(stmt.QueryRowContext(ctx, name))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, backendai.NotFound("user", name)
	}
	if err != nil {
		return nil, failed("read user", err)
	}
	return u, nil
}

func scanUser(row scanner) (*backendai.User, error) {
	u := &backendai.User{}
	var created sql.NullInt64
	err := row.Scan(&u.ID, &u.Email, &u.Username, &u.FullName, &u.Role, &u.Domain, &u.Group, &u.Description, &u.Active, &created)
	u.CreatedAt = moment(created)
	return u, err
}

// Users implements account.Store.
func (s *Store) Users(ctx context.Context) ([]*backendai.User, error) {
	return all(ctx, s.reader, "users", scanUser, selectUser+" ORDER BY created_at, id")
}

// all reads every row of a query.
func all[T any](ctx context.Context, db *sql.DB, objects string, scan func(scanner) (*T, error), query string, args ...any) ([]*T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failed("read "+objects, err)
	}
	defer func() { _ = rows.Close() }()
	var list []*T
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, failed("read "+objects, err)
		}
		list = append(list, item)
	}
	if err := rows.Err(); err != nil {
		return nil, failed("read "+objects, err)
	}
	return list, nil
}

// PasswordHash implements account.Store.
func (s *Store) PasswordHash(ctx context.Context, userID string) (string, error) {
	var hash string
	err := s.reader.QueryRowContext(ctx, "SELECT password_hash FROM users WHERE id = ?", userID).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return "", backendai.NotFound("user", userID)
	}
	if err != nil {
		return "", failed("read user", err)
	}
	return hash, nil
}

// InsertKeypair implements account.Store.
func (s *Store) InsertKeypair(ctx context.Context, k *backendai.Keypair) error {
	defer s.wrote()
	return s.putKeypair(ctx, s.writer, k)
}

func (s *Store) putKeypair(ctx context.Context, db querier, k *backendai.Keypair) error {
	_, err := db.ExecContext(ctx, insertKeypair, k.AccessKey, s.seal(k.SecretKey, secretPlace(k.AccessKey)), k.UserID, k.Active, k.Admin,
		k.ResourcePolicy, k.RateLimit, nanoseconds(k.CreatedAt), nanoseconds(k.LastUsed))
	if err != nil {
		return failed("insert keypair", err)
	}
	return nil
}

// UpdateKeypair implements account.Store.
func (s *Store) UpdateKeypair(ctx context.Context, k *backendai.Keypair) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, updateKeypair, k.Active, k.Admin, k.ResourcePolicy, k.RateLimit, k.AccessKey)
	return one(done, err, "keypair", k.AccessKey)
}

// UseKeypair implements account.Store.
func (s *Store) UseKeypair(ctx context.Context, accessKey string, at time.Time) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "UPDATE keypairs SET last_used = max(ifnull(last_used, 0), ?) WHERE access_key = ?", at.UnixNano(), accessKey)
	return one(done, err, "keypair", accessKey)
}

// Keypair implements account.Store.
func (s *Store) Keypair(ctx context.Context, accessKey string) (*backendai.Keypair, error) {
	k, err := s.scanKeypair(s.stmts.keypair.QueryRowContext(ctx, accessKey))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, backendai.NotFound("keypair", accessKey)
	}
	if err != nil {
		return nil, failed("read keypair", err)
	}
	return k, nil
}

func (s *Store) scanKeypair(row scanner) (*backendai.Keypair, error) {
	k := &backendai.Keypair{}
	var sealed []byte
	var created, used sql.NullInt64
	err := row.Scan(&k.AccessKey, &sealed, &k.UserID, &k.Email, &k.Active, &k.Admin, &k.ResourcePolicy, &k.SSHPublicKey, &k.RateLimit, &created, &used)
	if err != nil {
		return nil, err
	}
	k.CreatedAt, k.LastUsed = moment(created), moment(used)
	k.SecretKey, err = s.open(sealed, secretPlace(k.AccessKey))
	return k, err
}

// Keypairs implements account.Store.
func (s *Store) Keypairs(ctx context.Context, userID string) ([]*backendai.Keypair, error) {
	return all(ctx, s.reader, "keypairs", s.scanKeypair, selectKeypair+" WHERE ? IN ('', user_id) ORDER BY keypairs.created_at, access_key", userID)
}

// DeleteKeypair implements account.Store.
func (s *Store) DeleteKeypair(ctx context.Context, accessKey string) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "DELETE FROM keypairs WHERE access_key = ?", accessKey)
	return one(done, err, "keypair", accessKey)
}

// SSHKeypair implements account.Store.
func (s *Store) SSHKeypair(ctx context.Context, accessKey string) (public, private string, err error) {
	var sealed []byte
	err = s.reader.QueryRowContext(ctx, "SELECT ssh_public_key, ssh_private_key FROM keypairs WHERE access_key = ?", accessKey).Scan(&public, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", backendai.NotFound("keypair", accessKey)
	}
	if err != nil {
		return "", "", failed("read keypair", err)
	}
	if sealed == nil {
		return public, "", nil
	}
	private, err = s.open(sealed, sshPlace(accessKey))
	return public, private, err
}

// SetSSHKeypair implements account.Store.
func (s *Store) SetSSHKeypair(ctx context.Context, accessKey, public, private string) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "UPDATE keypairs SET ssh_public_key = ?, ssh_private_key = ? WHERE access_key = ?",
		public, s.seal(private, sshPlace(accessKey)), accessKey)
	return one(done, err, "keypair", accessKey)
}
