// Package account is who may do what: users, their keypairs, and the checks of
// signed requests against them.
package account

import (
	"context"
	"time"

	"backendai"
)

// Store is what the service keeps in the database. Secret keys, and private SSH
// keys, are sealed on their way in and opened on their way out by the store.
// What is not there is CodeNotFound; an e-mail address or a user name that
// another user has, in whatever case, is CodeInvalidParams.
type Store interface {
	// InsertUser keeps a user and its first keypair, both or none.
	InsertUser(ctx context.Context, u *backendai.User, passwordHash string, k *backendai.Keypair) error
	UpdateUser(ctx context.Context, u *backendai.User) error
	User(ctx context.Context, id string) (*backendai.User, error)
	UserByEmail(ctx context.Context, email string) (*backendai.User, error)
	Users(ctx context.Context) ([]*backendai.User, error)
	PasswordHash(ctx context.Context, userID string) (string, error)
	InsertKeypair(ctx context.Context, k *backendai.Keypair) error
	// UpdateKeypair changes what may change of a keypair: not its secret, its
	// owner, its SSH key or its times.
	UpdateKeypair(ctx context.Context, k *backendai.Keypair) error
	// UseKeypair notes when a keypair was used last.
	UseKeypair(ctx context.Context, accessKey string, at time.Time) error
	Keypair(ctx context.Context, accessKey string) (*backendai.Keypair, error)
	// Keypairs lists those of a user, or all when userID is empty, the oldest first.
	Keypairs(ctx context.Context, userID string) ([]*backendai.Keypair, error)
	DeleteKeypair(ctx context.Context, accessKey string) error
	// SSHKeypair gives the account-wide SSH key; both halves are empty when there is none.
	SSHKeypair(ctx context.Context, accessKey string) (public, private string, err error)
	SetSSHKeypair(ctx context.Context, accessKey, public, private string) error
}

// API is what transports call; *Service implements it. What the caller may not
// know of is CodeNotFound, what it may know of and not change CodeForbidden.
type API interface {
	// Lookup finds the active keypair and its active user for checking a
	// signature; CodeAuthFailed when there is none.
	Lookup(ctx context.Context, accessKey string) (backendai.Caller, error)
	// Hold is for what goes on longer than a request: held ends when Lookup would
	// not find the keypair any more. The caller calls release when it is over.
	Hold(ctx context.Context, accessKey string) (held context.Context, release func(), err error)
	// Act returns the caller on whose behalf a superadmin acts by
	// owner_access_key, or the caller itself when ownerAccessKey is empty or its
	// own. Users may act by all their own keypairs.
	Act(ctx context.Context, caller backendai.Caller, ownerAccessKey string) (backendai.Caller, error)
	// Users and keypairs: superadmins see and change all, others see their own only.
	Users(ctx context.Context, caller backendai.Caller) ([]*backendai.User, error)
	User(ctx context.Context, caller backendai.Caller, email string) (*backendai.User, error)
	// AddUser makes a user and its first keypair. Role, domain, group and user name have defaults.
	AddUser(ctx context.Context, caller backendai.Caller, u backendai.User, password string) (*backendai.User, *backendai.Keypair, error)
	// UpdateUser changes the user with the ID of u. Its own user name, full name
	// and description may be changed by everyone, the rest by superadmins.
	UpdateUser(ctx context.Context, caller backendai.Caller, u backendai.User) (*backendai.User, error)
	Keypairs(ctx context.Context, caller backendai.Caller) ([]*backendai.Keypair, error)
	// AddKeypair makes another keypair. A resource policy and a rate limit that
	// are not given are the usual ones; only superadmins give others.
	AddKeypair(ctx context.Context, caller backendai.Caller, email string, k backendai.Keypair) (*backendai.Keypair, error)
	SetKeypairActive(ctx context.Context, caller backendai.Caller, accessKey string, active bool) (*backendai.Keypair, error)
	DeleteKeypair(ctx context.Context, caller backendai.Caller, accessKey string) error
	// SSHKeypair is the account-wide SSH key of the caller's keypair, which every
	// session started by it gets; both halves are empty when none was set.
	SSHKeypair(ctx context.Context, caller backendai.Caller) (public, private string, err error)
	// SetSSHKeypair takes a key pair in OpenSSH's forms, without a passphrase.
	SetSSHKeypair(ctx context.Context, caller backendai.Caller, public, private string) error
	// NewSSHKeypair makes and sets an account-wide SSH key.
	NewSSHKeypair(ctx context.Context, caller backendai.Caller) (public, private string, err error)
	// Bootstrap makes the administrator if there is no user yet and tells whether it did.
	Bootstrap(ctx context.Context) (*backendai.Keypair, bool, error)
}
