package account

import (
	"context"
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"backendai"
)

// defaultName is the name of the only domain, the only group and the only
// resource policy.
const defaultName = "default"

// adminEmail is the administrator that the first start makes.
const adminEmail = "admin@localhost"

// The bounds of what people tell of users, in characters.
const (
	maxEmail       = 254
	maxFullName    = 128
	maxDescription = 1024
)

// Users implements API.
func (s *Service) Users(ctx context.Context, caller backendai.Caller) ([]*backendai.User, error) {
	if caller.Superadmin() {
		return s.store.Users(ctx)
	}
	u, err := s.store.User(ctx, caller.User.ID)
	if err != nil {
		return nil, err
	}
	return []*backendai.User{u}, nil
}

// User implements API.
func (s *Service) User(ctx context.Context, caller backendai.Caller, email string) (*backendai.User, error) {
	email = strings.ToLower(email)
	if !caller.Superadmin() && email != caller.User.Email {
		return nil, backendai.NotFound("user", email)
	}
	return s.store.UserByEmail(ctx, email)
}

// AddUser implements API.
func (s *Service) AddUser(ctx context.Context, caller backendai.Caller, u backendai.User, password string) (*backendai.User, *backendai.Keypair, error) {
	if !caller.Superadmin() {
		return nil, nil, superadminsOnly("add users")
	}
	if err := checkPassword(password); err != nil {
		return nil, nil, err
	}
	if u.Role == "" {
		u.Role = backendai.RoleUser
	}
	if u.Domain == "" {
		u.Domain = defaultName
	}
	if u.Group == "" {
		u.Group = defaultName
	}
	if u.Username == "" {
		u.Username = u.Email
	}
	if err := check(&u); err != nil {
		return nil, nil, err
	}
	hash, err := s.hash(ctx, password)
	if err != nil {
		return nil, nil, err
	}
	defer s.lock()()
	return s.insert(ctx, u, hash)
}

// insert keeps a new user and makes its first keypair.
func (s *Service) insert(ctx context.Context, u backendai.User, passwordHash string) (*backendai.User, *backendai.Keypair, error) {
	u.ID, u.CreatedAt = uuid.NewString(), s.now().UTC()
	k := s.newKeypair(&u)
	k.Active = true
	if err := s.store.InsertUser(ctx, &u, passwordHash, k); err != nil {
		return nil, nil, err
	}
	s.changed(ctx)
	return &u, k, nil
}

// UpdateUser implements API.
func (s *Service) UpdateUser(ctx context.Context, caller backendai.Caller, u backendai.User) (*backendai.User, error) {
	defer s.lock()()
	if !caller.Superadmin() && u.ID != caller.User.ID {
		return nil, backendai.NotFound("user", u.Email)
	}
	old, err := s.store.User(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	u.CreatedAt = old.CreatedAt
	if err := check(&u); err != nil {
		return nil, err
	}
	own := u
	own.Username, own.FullName, own.Description = old.Username, old.FullName, old.Description
	if own != *old && !caller.Superadmin() {
		return nil, superadminsOnly("change an e-mail address, a role, a group or whether a user is active")
	}
	if u.ID == caller.User.ID && caller.Superadmin() && (!u.Active || u.Role != backendai.RoleSuperadmin) {
		return nil, lockedOut("your own user would be a superadmin no more", "let another superadmin do it")
	}
	defer s.changed(ctx)
	if err := s.store.UpdateUser(ctx, &u); err != nil {
		return nil, err
	}
	if caller.Superadmin() {
		if err := s.adapt(ctx, &u); err != nil {
			return nil, err
		}
	}
	return &u, nil
}

func lockedOut(why, hint string) error {
	return backendai.Errorf(backendai.CodeInvalidParams, "this would lock you out: %s", why).WithHint("%s", hint)
}

var usernameRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$`)

// check holds the rules of users and brings the e-mail address into its usual form.
func check(u *backendai.User) error {
	u.Email = strings.ToLower(u.Email)
	invalid := func(field, format string, args ...any) error {
		text := fmt.Sprintf(format, args...)
		return backendai.Errorf(backendai.CodeInvalidParams, "%s", text).WithData(map[string]string{field: text})
	}
	// An address that needs quoting, or shows otherwise than it is, is nobody's.
	address, err := mail.ParseAddress(u.Email)
	if err != nil || address.Address != u.Email || len(u.Email) > maxEmail || strings.ContainsFunc(u.Email, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return invalid("email", "%q is not an e-mail address", u.Email)
	}
	if !usernameRE.MatchString(u.Username) || len(u.Username) > maxEmail {
		return invalid("username", "%q is not a user name: it has letters, digits, dots, dashes, underscores, + and @, and begins with a letter, digit or underscore", u.Username)
	}
	if !printable(u.FullName, maxFullName) {
		return invalid("full_name", "a full name has %d printable characters at most", maxFullName)
	}
	if !printable(u.Description, maxDescription) {
		return invalid("description", "a description has %d printable characters at most", maxDescription)
	}
	if roles := []backendai.Role{backendai.RoleUser, backendai.RoleAdmin, backendai.RoleSuperadmin}; !slices.Contains(roles, u.Role) {
		return invalid("role", "%q is not a role: there are user, admin and superadmin", u.Role)
	}
	if u.Domain != defaultName {
		return backendai.NotFound("domain", u.Domain).WithHint("there is one domain, %q", defaultName)
	}
	if u.Group != defaultName {
		return backendai.NotFound("group", u.Group).WithHint("there is one group, %q", defaultName)
	}
	return nil
}

// printable tells whether a text can be shown in one line of a terminal.
func printable(text string, most int) bool {
	return utf8.ValidString(text) && utf8.RuneCountInString(text) <= most &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Bootstrap implements API.
func (s *Service) Bootstrap(ctx context.Context) (*backendai.Keypair, bool, error) {
	defer s.lock()()
	all, err := s.store.Users(ctx)
	if err != nil || len(all) > 0 {
		return nil, false, err
	}
	_, k, err := s.insert(ctx, backendai.User{
		Email: adminEmail, Username: "admin", FullName: "Administrator", Role: backendai.RoleSuperadmin,
		Domain: defaultName, Group: defaultName, Active: true,
	}, "")
	return k, err == nil, err
}
