package store

import (
	"context"
	"database/sql"
	"fmt"
)

// statements are what runs often, read by SQLite once per connection. They end
// with their pools.
type statements struct {
	insertSession, updateSession *sql.Stmt
	session, user, userByEmail   *sql.Stmt
	keypair                      *sql.Stmt
}

func (st *statements) prepare(ctx context.Context, writer, reader *sql.DB) error {
	for _, one := range []struct {
		stmt **sql.Stmt
		db   *sql.DB
		text string
	}{
		{&st.insertSession, writer, insertSession},
		{&st.updateSession, writer, updateSession},
		{&st.session, reader, selectSession + " WHERE id = ?"},
		{&st.user, reader, selectUser + " WHERE id = ?"},
		{&st.userByEmail, reader, selectUser + " WHERE email = ?"},
		{&st.keypair, reader, selectKeypair + " WHERE access_key = ?"},
	} {
		var err error
		if *one.stmt, err = one.db.PrepareContext(ctx, one.text); err != nil {
			return fmt.Errorf("prepare %q: %w", one.text, err)
		}
	}
	return nil
}
