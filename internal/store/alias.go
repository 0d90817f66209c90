package store

import "context"

// Aliases implements image.AliasStore.
func (s *Store) Aliases(ctx context.Context) (map[string]string, error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT alias, target FROM image_aliases")
	if err != nil {
		return nil, failed("list image aliases", err)
	}
	defer func() { _ = rows.Close() }()
	aliases := map[string]string{}
	for rows.Next() {
		var alias, target string
		if err := rows.Scan(&alias, &target); err != nil {
			return nil, failed("list image aliases", err)
		}
		aliases[alias] = target
	}
	if err := rows.Err(); err != nil {
		return nil, failed("list image aliases", err)
	}
	return aliases, nil
}

// SetAlias implements image.AliasStore.
func (s *Store) SetAlias(ctx context.Context, alias, target string) error {
	defer s.wrote()
	if _, err := s.writer.ExecContext(ctx, "INSERT INTO image_aliases (alias, target) VALUES (?, ?) ON CONFLICT (alias) DO UPDATE SET target = excluded.target",
		alias, target); err != nil {
		return failed("set image alias "+alias, err)
	}
	return nil
}

// DeleteAlias implements image.AliasStore.
func (s *Store) DeleteAlias(ctx context.Context, alias string) error {
	defer s.wrote()
	done, err := s.writer.ExecContext(ctx, "DELETE FROM image_aliases WHERE alias = ?", alias)
	return one(done, err, "image alias", alias)
}
