// Package account is who may do what: users, their keypairs, and the checks of
// signed requests against them.
package account

import (
	"context"

	"backendai"
)

// Store is what the service keeps in the database. Secret keys are sealed on
// their way in and opened on their way out by the store.
type Store interface {
	InsertUser(ctx context.Context, u *backendai.User, passwordHash string) error
	UpdateUser(ctx context.Context, u *backendai.User) error
	User(ctx context.Context, id string) (*backendai.User, error)
	UserByEmail(ctx context.Context, email string) (*backendai.User, error)
	Users(ctx context.Context) ([]*backendai.User, error)
	PasswordHash(ctx context.Context, userID string) (string, error)
	InsertKeypair(ctx context.Context, k *backendai.Keypair) error
	UpdateKeypair(ctx context.Context, k *backendai.Keypair) error
	Keypair(ctx context.Context, accessKey string) (*backendai.Keypair, error)
	Keypairs(ctx context.Context) ([]*backendai.Keypair, error)
	DeleteKeypair(ctx context.Context, accessKey string) error
}

// API is what transports call; *Service implements it.
type API interface {
	// Lookup finds the active keypair and its active user for checking a
	// signature; CodeAuthFailed when there is none.
	Lookup(ctx context.Context, accessKey string) (backendai.Caller, error)
	// Act returns the caller on whose behalf a superadmin acts by
	// owner_access_key, or the caller itself when ownerAccessKey is empty or its own.
	Act(ctx context.Context, caller backendai.Caller, ownerAccessKey string) (backendai.Caller, error)
	// Users and keypairs: superadmins see and change all, others see their own only.
	Users(ctx context.Context, caller backendai.Caller) ([]*backendai.User, error)
	User(ctx context.Context, caller backendai.Caller, email string) (*backendai.User, error)
	AddUser(ctx context.Context, caller backendai.Caller, u backendai.User, password string) (*backendai.User, *backendai.Keypair, error)
	UpdateUser(ctx context.Context, caller backendai.Caller, u backendai.User) (*backendai.User, error)
	Keypairs(ctx context.Context, caller backendai.Caller) ([]*backendai.Keypair, error)
	AddKeypair(ctx context.Context, caller backendai.Caller, email string, k backendai.Keypair) (*backendai.Keypair, error)
	SetKeypairActive(ctx context.Context, caller backendai.Caller, accessKey string, active bool) (*backendai.Keypair, error)
	DeleteKeypair(ctx context.Context, caller backendai.Caller, accessKey string) error
	// Bootstrap makes the administrator if there is no user yet and tells whether it did.
	Bootstrap(ctx context.Context) (*backendai.Keypair, bool, error)
}
