package backendai

import "time"

// Role is what a user may do.
type Role string

// The roles.
const (
	RoleUser       Role = "user"
	RoleAdmin      Role = "admin"
	RoleSuperadmin Role = "superadmin"
)

// User owns sessions and keypairs. The password hash never leaves the store.
type User struct {
	ID          string // UUID
	Email       string
	Username    string
	FullName    string
	Role        Role
	Domain      string
	Group       string
	Description string
	Active      bool
	CreatedAt   time.Time
}

// Keypair signs requests for its user. SecretKey is in the clear in memory
// only: HMAC needs it; the store seals it.
type Keypair struct {
	AccessKey      string
	SecretKey      string
	UserID         string
	Email          string
	Active         bool
	Admin          bool
	ResourcePolicy string
	SSHPublicKey   string // of the account-wide SSH key, in authorized_keys form; empty when there is none
	RateLimit      int    // requests in 15 minutes; 0 is no limit
	CreatedAt      time.Time
	LastUsed       time.Time
}

// Caller is who makes a request: the keypair that signed it and its user.
type Caller struct {
	User    User
	Keypair Keypair
}

// Superadmin tells whether the caller may act on everything.
func (c Caller) Superadmin() bool { return c.User.Role == RoleSuperadmin }
