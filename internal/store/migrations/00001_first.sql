-- +goose Up

-- One row: a known text under the key of secret.key, to tell whether the key is the right one.
CREATE TABLE seal (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    sealed BLOB NOT NULL
) STRICT;

-- Times are nanoseconds since 1970 in UTC; NULL is no time.
CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    email         TEXT NOT NULL UNIQUE COLLATE NOCASE,
    username      TEXT NOT NULL UNIQUE COLLATE NOCASE,
    full_name     TEXT NOT NULL,
    role          TEXT NOT NULL,
    domain_name   TEXT NOT NULL,
    group_name    TEXT NOT NULL,
    description   TEXT NOT NULL,
    active        INTEGER NOT NULL,
    created_at    INTEGER,
    password_hash TEXT NOT NULL
) STRICT;

CREATE TABLE keypairs (
    access_key      TEXT PRIMARY KEY,
    secret_key      BLOB NOT NULL, -- sealed
    user_id         TEXT NOT NULL REFERENCES users (id),
    active          INTEGER NOT NULL,
    admin           INTEGER NOT NULL,
    resource_policy TEXT NOT NULL,
    rate_limit      INTEGER NOT NULL,
    created_at      INTEGER,
    last_used       INTEGER,
    ssh_public_key  TEXT NOT NULL DEFAULT '',
    ssh_private_key BLOB -- sealed
) STRICT;

CREATE INDEX keypairs_of_user ON keypairs (user_id);

-- What queries look for has a column, the rest stands in detail, as JSON.
CREATE TABLE sessions (
    seq            INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    access_key     TEXT NOT NULL,
    user_id        TEXT NOT NULL,
    domain_name    TEXT NOT NULL,
    group_name     TEXT NOT NULL,
    type           TEXT NOT NULL,
    image          TEXT NOT NULL,
    architecture   TEXT NOT NULL,
    tag            TEXT NOT NULL,
    priority       INTEGER NOT NULL,
    status         TEXT NOT NULL,
    status_info    TEXT NOT NULL,
    status_changed INTEGER,
    result         TEXT NOT NULL,
    created_at     INTEGER,
    terminated_at  INTEGER,
    live           INTEGER NOT NULL, -- the status is not final
    detail         TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX sessions_live_name ON sessions (access_key, name) WHERE live;
CREATE INDEX sessions_of_user ON sessions (user_id, created_at);
CREATE INDEX sessions_of_access_key ON sessions (access_key, created_at);
CREATE INDEX sessions_by_age ON sessions (created_at);

CREATE TABLE image_aliases (
    alias  TEXT PRIMARY KEY,
    target TEXT NOT NULL
) STRICT;

-- +goose Down
DROP TABLE image_aliases;
DROP TABLE sessions;
DROP TABLE keypairs;
DROP TABLE users;
DROP TABLE seal;
