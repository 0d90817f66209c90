-- +goose Up

-- A folder belongs to a user or, without one, to a project.
CREATE TABLE vfolders (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    host        TEXT NOT NULL,
    domain_name TEXT NOT NULL,
    user_id     TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    creator     TEXT NOT NULL,
    usage_mode  TEXT NOT NULL,
    permission  TEXT NOT NULL,
    cloneable   INTEGER NOT NULL,
    max_size    INTEGER NOT NULL,
    status      TEXT NOT NULL,
    status_info TEXT NOT NULL,
    created_at  INTEGER,
    last_used   INTEGER,
    trashed_at  INTEGER,
    used_bytes  INTEGER NOT NULL DEFAULT 0,
    used_files  INTEGER NOT NULL DEFAULT 0,
    named       INTEGER NOT NULL -- it is not in the trash: its name is taken
) STRICT;

CREATE UNIQUE INDEX vfolders_name ON vfolders (user_id, group_name, domain_name, name) WHERE named AND user_id = '';
CREATE UNIQUE INDEX vfolders_name_of_user ON vfolders (user_id, name) WHERE named AND user_id <> '';
CREATE INDEX vfolders_of_group ON vfolders (group_name, domain_name);

CREATE TABLE vfolder_shares (
    folder_id  TEXT NOT NULL REFERENCES vfolders (id) ON DELETE CASCADE,
    user_id    TEXT NOT NULL,
    permission TEXT NOT NULL,
    created_at INTEGER,
    PRIMARY KEY (folder_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX vfolder_shares_of_user ON vfolder_shares (user_id);

CREATE TABLE vfolder_invitations (
    id          TEXT PRIMARY KEY,
    folder_id   TEXT NOT NULL REFERENCES vfolders (id) ON DELETE CASCADE,
    inviter     TEXT NOT NULL COLLATE NOCASE,
    invitee     TEXT NOT NULL COLLATE NOCASE,
    permission  TEXT NOT NULL,
    state       TEXT NOT NULL,
    created_at  INTEGER,
    modified_at INTEGER
) STRICT;

CREATE INDEX vfolder_invitations_of_folder ON vfolder_invitations (folder_id);
CREATE INDEX vfolder_invitations_of_invitee ON vfolder_invitations (invitee);

CREATE TABLE dotfiles (
    access_key TEXT NOT NULL REFERENCES keypairs (access_key) ON DELETE CASCADE,
    path       TEXT NOT NULL,
    permission TEXT NOT NULL,
    data       TEXT NOT NULL,
    PRIMARY KEY (access_key, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE bootstrap_scripts (
    access_key TEXT PRIMARY KEY REFERENCES keypairs (access_key) ON DELETE CASCADE,
    script     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE bootstrap_scripts;
DROP TABLE dotfiles;
DROP TABLE vfolder_invitations;
DROP TABLE vfolder_shares;
DROP TABLE vfolders;
