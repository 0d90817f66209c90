package graphql

import (
	"context"
	"errors"
	"strings"

	"backendai"
)

type keyPair struct {
	UserID                                       *string // the email: the protocol's name for it
	User                                         *uuid
	UserInfo                                     userInfo
	AccessKey, SecretKey, ResourcePolicy         string
	IsActive, IsAdmin                            bool
	CreatedAt, LastUsed                          *dateTime
	RateLimit, ConcurrencyLimit, ConcurrencyUsed int32
}

type userInfo struct{ Email, FullName string }

type keyPairList struct {
	Items      []*keyPair
	TotalCount int32
}

type user struct {
	ID, UUID                               uuid
	Username, Email, FullName, Description string
	Status, DomainName, Role               string
	StatusInfo                             *string
	NeedPasswordChange, IsActive           bool
	CreatedAt                              *dateTime
	Groups                                 []*userGroup
}

type userGroup struct{ ID, Name string }

type userList struct {
	Items      []*user
	TotalCount int32
}

type keyPairArgs struct {
	DomainName *string
	Email      *string
	IsActive   *bool
}

// Keypair is the caller's own, or another that it may see.
func (r *resolver) Keypair(ctx context.Context, args struct{ DomainName, AccessKey *string }) (*keyPair, error) {
	caller := callerOf(ctx)
	if key := text(args.AccessKey); key != "" && key != caller.Keypair.AccessKey {
		all, err := r.opts.Accounts.Keypairs(ctx, caller)
		if err != nil {
			return nil, err
		}
		for _, k := range all {
			if k.AccessKey == key {
				return r.keypair(ctx, k, nil)
			}
		}
		return nil, nil
	}
	return r.keypair(ctx, &caller.Keypair, &caller.User)
}

// Keypairs are all that the caller may see.
func (r *resolver) Keypairs(ctx context.Context, args keyPairArgs) ([]*keyPair, error) {
	all, err := r.opts.Accounts.Keypairs(ctx, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	users, err := r.usersByEmail(ctx)
	if err != nil {
		return nil, err
	}
	list := []*keyPair{}
	for _, k := range all {
		if text(args.Email) != "" && k.Email != *args.Email || args.IsActive != nil && k.Active != *args.IsActive {
			continue
		}
		item, err := r.keypair(ctx, k, users[k.Email])
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, nil
}

// KeypairList is a page of Keypairs.
func (r *resolver) KeypairList(ctx context.Context, args struct {
	page
	keyPairArgs
},
) (*keyPairList, error) {
	all, err := r.Keypairs(ctx, args.keyPairArgs)
	if err != nil {
		return nil, err
	}
	items, total, err := pick(args.page, all, keyPairFields)
	if err != nil {
		return nil, err
	}
	return &keyPairList{items, total}, nil
}

func (r *resolver) usersByEmail(ctx context.Context) (map[string]*backendai.User, error) {
	all, err := r.opts.Accounts.Users(ctx, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	users := make(map[string]*backendai.User, len(all))
	for _, u := range all {
		users[u.Email] = u
	}
	return users, nil
}

// keypair makes the type KeyPair; u may be nil when it is not known yet.
func (r *resolver) keypair(ctx context.Context, k *backendai.Keypair, u *backendai.User) (*keyPair, error) {
	email := k.Email
	if u == nil && email != "" {
		found, err := r.opts.Accounts.User(ctx, callerOf(ctx), email)
		if err != nil && !missing(err) {
			return nil, err
		}
		u = found
	}
	item := &keyPair{
		AccessKey: k.AccessKey, SecretKey: k.SecretKey, ResourcePolicy: k.ResourcePolicy, IsActive: k.Active, IsAdmin: k.Admin,
		CreatedAt: when(k.CreatedAt), LastUsed: when(k.LastUsed), RateLimit: int32(k.RateLimit),
	}
	if u != nil {
		email = u.Email
		item.UserInfo.FullName = u.FullName
	}
	id := uuid(k.UserID)
	item.UserID, item.User, item.UserInfo.Email = &email, &id, email
	return item, nil
}

// User is the caller, or another that it may see.
func (r *resolver) User(ctx context.Context, args struct{ DomainName, Email *string }) (*user, error) {
	caller := callerOf(ctx)
	if text(args.Email) == "" {
		return userOf(&caller.User), nil
	}
	u, err := r.opts.Accounts.User(ctx, caller, *args.Email)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return userOf(u), nil
}

type userArgs struct {
	DomainName *string
	GroupID    *uuid
	IsActive   *bool
	Status     *string
}

// Users are all that the caller may see.
func (r *resolver) Users(ctx context.Context, args userArgs) ([]*user, error) {
	all, err := r.opts.Accounts.Users(ctx, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	list := []*user{}
	for _, u := range all {
		item := userOf(u)
		if args.IsActive != nil && u.Active != *args.IsActive || text(args.Status) != "" && !strings.EqualFold(*args.Status, item.Status) {
			continue
		}
		list = append(list, item)
	}
	return list, nil
}

// UserList is a page of Users.
func (r *resolver) UserList(ctx context.Context, args struct {
	page
	userArgs
},
) (*userList, error) {
	all, err := r.Users(ctx, args.userArgs)
	if err != nil {
		return nil, err
	}
	items, total, err := pick(args.page, all, userFields)
	if err != nil {
		return nil, err
	}
	return &userList{items, total}, nil
}

func userOf(u *backendai.User) *user {
	status := "inactive"
	if u.Active {
		status = "active"
	}
	return &user{
		ID: uuid(u.ID), UUID: uuid(u.ID), Username: u.Username, Email: u.Email, FullName: u.FullName, Description: u.Description,
		Status: status, DomainName: u.Domain, Role: string(u.Role), IsActive: u.Active, CreatedAt: when(u.CreatedAt),
		Groups: []*userGroup{{u.Group, u.Group}},
	}
}

// done is the answer of a mutation. What the caller did wrong is told in msg,
// as the protocol's clients expect; what it may not do is an error of the query.
type done struct {
	OK  bool
	Msg string
}

func outcome(err error) (done, error) {
	if err == nil {
		return done{true, "success"}, nil
	}
	if e, ok := errors.AsType[*backendai.Error](err); ok && e.Code != backendai.CodeForbidden && e.Code.HTTPStatus() < 500 {
		return done{false, sentence(e)}, nil
	}
	return done{}, err
}

// answer is the outcome of a mutation that has nothing else to say.
func answer(err error) (*done, error) {
	d, err := outcome(err)
	if err != nil {
		return nil, err
	}
	return &d, nil
}

type createUser struct {
	done
	User    *user
	Keypair *keyPair
}

type userInput struct {
	Username, Password                              string
	NeedPasswordChange, IsActive                    *bool
	FullName, Description, Status, DomainName, Role *string
	GroupIDs                                        *[]*string
}

// CreateUser makes a user and its first keypair.
func (r *resolver) CreateUser(ctx context.Context, args struct {
	Email string
	Props userInput
},
) (*createUser, error) {
	p := args.Props
	u, k, err := r.opts.Accounts.AddUser(ctx, callerOf(ctx), backendai.User{
		Email: args.Email, Username: p.Username, FullName: text(p.FullName), Description: text(p.Description),
		Role: backendai.Role(text(p.Role)), Domain: text(p.DomainName), Active: active(p.IsActive, p.Status, true),
	}, p.Password)
	reply := &createUser{}
	if reply.done, err = outcome(err); err != nil {
		return nil, err
	} else if !reply.OK {
		return reply, nil
	}
	reply.User = userOf(u)
	reply.Keypair, err = r.keypair(ctx, k, u)
	return reply, err
}

// active reads the two ways in which the protocol says that a user is active.
func active(isActive *bool, status *string, otherwise bool) bool {
	if isActive != nil {
		return *isActive
	}
	if text(status) != "" {
		return strings.EqualFold(*status, "active")
	}
	return otherwise
}

type modifyUser struct {
	done
	User *user
}

type modifyUserInput struct {
	Username, FullName, Description, Status, Role *string
	IsActive                                      *bool
}

// ModifyUser changes the given fields of a user.
func (r *resolver) ModifyUser(ctx context.Context, args struct {
	Email string
	Props modifyUserInput
},
) (*modifyUser, error) {
	reply := &modifyUser{}
	u, err := r.opts.Accounts.User(ctx, callerOf(ctx), args.Email)
	if err == nil {
		p, changed := args.Props, *u
		for to, from := range map[*string]*string{&changed.Username: p.Username, &changed.FullName: p.FullName, &changed.Description: p.Description} {
			if from != nil {
				*to = *from
			}
		}
		if p.Role != nil {
			changed.Role = backendai.Role(*p.Role)
		}
		changed.Active = active(p.IsActive, p.Status, changed.Active)
		u, err = r.opts.Accounts.UpdateUser(ctx, callerOf(ctx), changed)
	}
	if reply.done, err = outcome(err); err != nil {
		return nil, err
	} else if !reply.OK {
		return reply, nil
	}
	reply.User = userOf(u)
	return reply, nil
}

type keyPairInput struct {
	IsActive, IsAdmin           *bool
	ResourcePolicy              *string
	ConcurrencyLimit, RateLimit *int32
}

type createKeyPair struct {
	done
	Keypair *keyPair
}

// CreateKeypair makes another keypair of a user, who is named by email.
func (r *resolver) CreateKeypair(ctx context.Context, args struct {
	UserID string
	Props  keyPairInput
},
) (*createKeyPair, error) {
	p := args.Props
	wanted := backendai.Keypair{Active: flag(p.IsActive, true), Admin: flag(p.IsAdmin, false), ResourcePolicy: text(p.ResourcePolicy)}
	if p.RateLimit != nil {
		wanted.RateLimit = int(*p.RateLimit)
	}
	k, err := r.opts.Accounts.AddKeypair(ctx, callerOf(ctx), args.UserID, wanted)
	reply := &createKeyPair{}
	if reply.done, err = outcome(err); err != nil {
		return nil, err
	} else if !reply.OK {
		return reply, nil
	}
	reply.Keypair, err = r.keypair(ctx, k, nil)
	return reply, err
}

// ModifyKeypair activates or deactivates a keypair; nothing else of it changes.
func (r *resolver) ModifyKeypair(ctx context.Context, args struct {
	AccessKey string
	Props     keyPairInput
},
) (*done, error) {
	p := args.Props
	if p.IsActive == nil || p.IsAdmin != nil || p.ResourcePolicy != nil || p.RateLimit != nil || p.ConcurrencyLimit != nil {
		return answer(backendai.Errorf(backendai.CodeInvalidParams, "only is_active of a keypair can be changed").
			WithHint("make a new keypair instead"))
	}
	_, err := r.opts.Accounts.SetKeypairActive(ctx, callerOf(ctx), args.AccessKey, *p.IsActive)
	return answer(err)
}

// DeleteKeypair removes a keypair.
func (r *resolver) DeleteKeypair(ctx context.Context, args struct{ AccessKey string }) (*done, error) {
	return answer(r.opts.Accounts.DeleteKeypair(ctx, callerOf(ctx), args.AccessKey))
}
