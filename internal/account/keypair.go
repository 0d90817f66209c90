package account

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"slices"

	"backendai"
)

const (
	// userRateLimit is what a user may ask for in 15 minutes; superadmins have no limit.
	userRateLimit = 30_000
	// maxKeypairs is how many keypairs a user may have that makes them itself.
	maxKeypairs = 16
)

// newKeypair makes a keypair of a user; it is not active yet and not kept.
// Whether it is an administrator's follows from the user's role.
func (s *Service) newKeypair(u *backendai.User) *backendai.Keypair {
	id, secret := make([]byte, 10), make([]byte, 30)
	_, _ = rand.Read(id) // never fails
	_, _ = rand.Read(secret)
	k := &backendai.Keypair{
		AccessKey: "AKIA" + base32.StdEncoding.EncodeToString(id), // 20 characters
		SecretKey: base64.RawURLEncoding.EncodeToString(secret),   // 40 characters
		UserID:    u.ID, Email: u.Email, Admin: u.Role != backendai.RoleUser, ResourcePolicy: defaultName, CreatedAt: s.now().UTC(),
	}
	if u.Role != backendai.RoleSuperadmin {
		k.RateLimit = userRateLimit
	}
	return k
}

// Keypairs implements API.
func (s *Service) Keypairs(ctx context.Context, caller backendai.Caller) ([]*backendai.Keypair, error) {
	if caller.Superadmin() {
		return s.store.Keypairs(ctx, "")
	}
	return s.own(ctx, caller.User.ID)
}

// own lists the keypairs of one user, whose id must not be empty.
func (s *Service) own(ctx context.Context, userID string) ([]*backendai.Keypair, error) {
	if userID == "" {
		return nil, nil
	}
	return s.store.Keypairs(ctx, userID)
}

// AddKeypair implements API.
func (s *Service) AddKeypair(ctx context.Context, caller backendai.Caller, email string, k backendai.Keypair) (*backendai.Keypair, error) {
	defer s.lock()()
	u, err := s.User(ctx, caller, email)
	if err != nil {
		return nil, err
	}
	made := s.newKeypair(u)
	made.Active = k.Active
	if k.ResourcePolicy != "" && k.ResourcePolicy != defaultName {
		return nil, backendai.NotFound("resource policy", k.ResourcePolicy).WithHint("there is one, %q", defaultName)
	}
	if k.Admin && !made.Admin {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "%s is no administrator, so its keypairs are none either", u.Email).
			WithHint("change the user's role first")
	}
	switch {
	case k.RateLimit < 0:
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "a rate limit is not negative")
	case k.RateLimit > 0 && !caller.Superadmin():
		return nil, superadminsOnly("give a rate limit")
	case k.RateLimit > 0:
		made.RateLimit = k.RateLimit
	}
	if !caller.Superadmin() {
		have, err := s.own(ctx, u.ID)
		if err != nil {
			return nil, err
		}
		if len(have) >= maxKeypairs {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "you have %d keypairs, more are not made", len(have)).
				WithHint("delete one that is not used any more")
		}
		// Nobody gives itself a higher limit than it has.
		made.RateLimit = caller.Keypair.RateLimit
	}
	if err := s.store.InsertKeypair(ctx, made); err != nil {
		return nil, err
	}
	s.changed(ctx)
	return made, nil
}

// SetKeypairActive implements API.
func (s *Service) SetKeypairActive(ctx context.Context, caller backendai.Caller, accessKey string, active bool) (*backendai.Keypair, error) {
	defer s.lock()()
	k, err := s.visible(ctx, caller, accessKey)
	if err != nil {
		return nil, err
	}
	if k.Active == active {
		return k, nil
	}
	if !active {
		if err := s.mayLose(ctx, caller, k); err != nil {
			return nil, err
		}
	}
	k.Active = active
	if err := s.store.UpdateKeypair(ctx, k); err != nil {
		return nil, err
	}
	s.changed(ctx)
	return k, nil
}

// DeleteKeypair implements API.
func (s *Service) DeleteKeypair(ctx context.Context, caller backendai.Caller, accessKey string) error {
	defer s.lock()()
	k, err := s.visible(ctx, caller, accessKey)
	if err != nil {
		return err
	}
	if err := s.mayLose(ctx, caller, k); err != nil {
		return err
	}
	if err := s.store.DeleteKeypair(ctx, accessKey); err != nil {
		return err
	}
	s.changed(ctx)
	return nil
}

// visible finds a keypair that the caller may know of.
func (s *Service) visible(ctx context.Context, caller backendai.Caller, accessKey string) (*backendai.Keypair, error) {
	k, err := s.store.Keypair(ctx, accessKey)
	if err != nil {
		return nil, err
	}
	if !caller.Superadmin() && k.UserID != caller.User.ID {
		return nil, backendai.NotFound("keypair", accessKey)
	}
	return k, nil
}

// mayLose tells whether the caller can do without an active keypair of its own.
func (s *Service) mayLose(ctx context.Context, caller backendai.Caller, lost *backendai.Keypair) error {
	if lost.UserID != caller.User.ID || !lost.Active {
		return nil
	}
	have, err := s.own(ctx, caller.User.ID)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(have, func(k *backendai.Keypair) bool { return k.Active && k.AccessKey != lost.AccessKey }) {
		return nil
	}
	return lockedOut("it is your last active keypair", "make another keypair first")
}

// adapt makes the keypairs of a user fit its role, which may have changed.
func (s *Service) adapt(ctx context.Context, u *backendai.User) error {
	have, err := s.own(ctx, u.ID)
	if err != nil {
		return err
	}
	for _, k := range have {
		want := *k
		want.Admin = u.Role != backendai.RoleUser
		if u.Role != backendai.RoleSuperadmin && want.RateLimit == 0 {
			want.RateLimit = userRateLimit
		}
		if want == *k {
			continue
		}
		if err := s.store.UpdateKeypair(ctx, &want); err != nil {
			return err
		}
	}
	return nil
}
