package vfolder

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"backendai"
)

// Invite offers users a permission in a folder of the caller's own. It returns
// whom it invited; those who have the folder or an invitation already are left out.
func (s *Service) Invite(ctx context.Context, caller backendai.Caller, ref string, p backendai.Permission, emails []string) ([]string, error) {
	v, err := s.managed(ctx, caller, ref)
	if err != nil {
		return nil, err
	}
	switch {
	case v.Group != "":
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the folder %q belongs to a project, whose members have it", v.Name).
			WithHint("'backend.ai vfolder share' gives one of them another permission")
	case v.Hidden():
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the folder %q cannot be shared", v.Name).
			WithHint("folders whose names begin with a dot hold settings and keys; put what you want to share into another one")
	case !v.Permission.Allows(p) && v.Permission == backendai.ReadOnly:
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the folder %q is read-only and cannot be shared with %s", v.Name, p)
	}
	users, err := s.people(ctx, emails)
	if err != nil {
		return nil, err
	}
	invited := []string{}
	for _, u := range users {
		if u.ID == caller.User.ID {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "the folder %q is yours already", v.Name).WithHint("invite others")
		}
		had, err := s.has(ctx, v, u)
		if err != nil {
			return nil, err
		}
		if had {
			continue
		}
		at := s.now().UTC()
		err = s.store.InsertInvitation(ctx, &Invitation{
			ID: uuid.NewString(), FolderID: v.ID, Inviter: caller.User.Email, Invitee: u.Email, Permission: p,
			State: InvitationPending, CreatedAt: at, ModifiedAt: at,
		})
		if err != nil {
			return nil, err
		}
		invited = append(invited, u.Email)
	}
	return invited, nil
}

// people finds active users by their emails.
func (s *Service) people(ctx context.Context, emails []string) ([]*backendai.User, error) {
	if len(emails) == 0 {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "no user is named").WithHint("name users by their emails")
	}
	users := make([]*backendai.User, 0, len(emails))
	for _, email := range slices.Compact(slices.Sorted(slices.Values(emails))) {
		u, err := s.store.UserByEmail(ctx, strings.TrimSpace(email))
		if err == nil && !u.Active || backendai.CodeOf(err) == backendai.CodeNotFound {
			return nil, backendai.NotFound("user", email).WithHint("name users by their emails")
		}
		if err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, nil
}

// has tells whether a user has a folder, or an invitation to it, already.
func (s *Service) has(ctx context.Context, v View, u *backendai.User) (bool, error) {
	shares, err := s.store.Shares(ctx, ShareQuery{FolderID: v.ID, UserID: u.ID})
	if err != nil || len(shares) > 0 {
		return true, err
	}
	pending, err := s.store.Invitations(ctx, InvitationQuery{FolderID: v.ID, Invitee: u.Email, State: InvitationPending})
	return len(pending) > 0, err
}

// Invitations lists the invitations to the caller that wait for an answer, or
// those that the caller has sent.
func (s *Service) Invitations(ctx context.Context, caller backendai.Caller, sent bool) ([]*Invitation, error) {
	if sent {
		return s.store.Invitations(ctx, InvitationQuery{Inviter: caller.User.Email, State: InvitationPending})
	}
	return s.store.Invitations(ctx, InvitationQuery{Invitee: caller.User.Email, State: InvitationPending})
}

// Accept takes an invitation: from now on the folder is among the caller's.
func (s *Service) Accept(ctx context.Context, caller backendai.Caller, id string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	i, err := s.invitation(ctx, id, caller)
	if err == nil && i.Invitee != caller.User.Email {
		err = backendai.NotFound("invitation", id)
	}
	if err != nil {
		return err
	}
	f, err := s.store.Folder(ctx, i.FolderID)
	if err != nil {
		return err
	}
	if !f.Usable() || f.Hidden() {
		return backendai.NotFound("folder", i.FolderName).WithHint("its owner has deleted it")
	}
	if err := s.nameIsFree(ctx, caller, f.Name, f.ID); err != nil {
		return err
	}
	if err := s.store.SetShare(ctx, Share{f.ID, caller.User.ID, i.Permission, s.now().UTC()}); err != nil {
		return err
	}
	i.State, i.ModifiedAt = InvitationAccepted, s.now().UTC()
	return s.store.UpdateInvitation(ctx, i)
}

// invitation is a pending one that the caller has sent or got.
func (s *Service) invitation(ctx context.Context, id string, caller backendai.Caller) (*Invitation, error) {
	i, err := s.store.Invitation(ctx, id)
	if err != nil {
		return nil, err
	}
	if i.Invitee != caller.User.Email && i.Inviter != caller.User.Email || i.State != InvitationPending {
		return nil, backendai.NotFound("invitation", id)
	}
	return i, nil
}

// Decline ends an invitation: the invitee rejects it, the inviter takes it back.
func (s *Service) Decline(ctx context.Context, caller backendai.Caller, id string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	i, err := s.invitation(ctx, id, caller)
	if err != nil {
		return err
	}
	i.State = InvitationRejected
	if i.Inviter == caller.User.Email {
		i.State = InvitationCanceled
	}
	i.ModifiedAt = s.now().UTC()
	return s.store.UpdateInvitation(ctx, i)
}

// Share gives members of a project another permission in a folder of the
// project than the folder gives to all of them. It returns whom.
func (s *Service) Share(ctx context.Context, caller backendai.Caller, ref string, p backendai.Permission, emails []string) ([]string, error) {
	v, users, err := s.members(ctx, caller, ref, emails)
	if err != nil {
		return nil, err
	}
	shared := []string{}
	for _, u := range users {
		if u.Group != v.Group || u.Domain != v.Domain {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "%s is not in the project %q", u.Email, v.Group)
		}
		if err := s.store.SetShare(ctx, Share{v.ID, u.ID, p, s.now().UTC()}); err != nil {
			return nil, err
		}
		shared = append(shared, u.Email)
	}
	return shared, nil
}

// Unshare takes back what Share gave.
func (s *Service) Unshare(ctx context.Context, caller backendai.Caller, ref string, emails []string) ([]string, error) {
	v, users, err := s.members(ctx, caller, ref, emails)
	if err != nil {
		return nil, err
	}
	unshared := []string{}
	for _, u := range users {
		if err := s.store.DeleteShare(ctx, v.ID, u.ID); err != nil {
			return nil, err
		}
		unshared = append(unshared, u.Email)
	}
	return unshared, nil
}

func (s *Service) members(ctx context.Context, caller backendai.Caller, ref string, emails []string) (View, []*backendai.User, error) {
	v, err := s.managed(ctx, caller, ref)
	if err != nil {
		return View{}, nil, err
	}
	if v.Group == "" {
		return View{}, nil, backendai.Errorf(backendai.CodeInvalidParams, "the folder %q does not belong to a project", v.Name).
			WithHint("'backend.ai vfolder invite' shares a folder of your own, 'backend.ai vfolder leave -s' ends that")
	}
	users, err := s.people(ctx, emails)
	return v, users, err
}

// Leave gives up a folder that is shared with the caller. The owner of the
// folder may end the share of another user so, by that user's id.
func (s *Service) Leave(ctx context.Context, caller backendai.Caller, ref, userID string) error {
	v, err := s.find(ctx, caller, ref)
	if err != nil {
		return err
	}
	if userID == "" || userID == caller.User.ID {
		userID = caller.User.ID
		if v.Owner {
			return backendai.Errorf(backendai.CodeInvalidParams, "the folder %q is yours and cannot be left", v.Name).
				WithHint("'backend.ai vfolder delete' moves it to the trash")
		}
		if v.Group != "" {
			return backendai.Errorf(backendai.CodeInvalidParams, "the folder %q belongs to your project and cannot be left", v.Name)
		}
	} else if !v.Manager {
		return backendai.Errorf(backendai.CodeForbidden, "only the owner of the folder %q may end the share of another user", v.Name)
	}
	shares, err := s.store.Shares(ctx, ShareQuery{FolderID: v.ID, UserID: userID})
	if err != nil {
		return err
	}
	if len(shares) == 0 {
		return backendai.NotFound("share", userID).WithHint("the folder is not shared with that user")
	}
	return s.store.DeleteShare(ctx, v.ID, userID)
}
