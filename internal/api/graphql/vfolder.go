package graphql

import (
	"cmp"
	"context"
	_ "embed"
	"math"

	"backendai/internal/filter"
	"backendai/internal/vfolder"
)

//go:embed vfolder.graphql
var folderSchema string

// folder is the type VirtualFolder.
type folder struct {
	ID                                uuid
	User                              *uuid
	Host, QuotaScopeID, Name, Creator string
	DomainName, UsageMode, Permission string
	OwnershipType, Status             string
	UserEmail, Group, GroupName       *string
	UnmanagedPath                     *string
	MaxFiles, NumFiles                int32
	MaxSize, CurSize                  bigInt
	Cloneable                         bool
	CreatedAt, LastUsed               *dateTime
	owned                             bool
}

type folderList struct {
	Items      []*folder
	TotalCount int32
}

func folderOf(v vfolder.View) *folder {
	f := &folder{
		ID: uuid(v.ID), Host: v.Host, Name: v.Name, Creator: v.Creator, DomainName: v.Domain, UsageMode: string(v.UsageMode),
		Permission: string(v.Effective), OwnershipType: "user", Status: string(v.Status), MaxSize: bigInt(v.MaxSize), CurSize: bigInt(v.UsedBytes),
		NumFiles: int32(min(v.UsedFiles, math.MaxInt32)), Cloneable: v.Cloneable, CreatedAt: when(v.CreatedAt), LastUsed: when(v.LastUsed),
		Group: optional(v.Group), GroupName: optional(v.Group), owned: v.Owner,
	}
	if v.Group != "" {
		f.OwnershipType = "group"
	} else {
		user := uuid(v.UserID)
		f.User, f.UserEmail = &user, optional(v.Creator)
	}
	f.QuotaScopeID = f.OwnershipType + ":" + cmp.Or(v.UserID, v.Group)
	return f
}

// folderFields have the names of the protocol's type VirtualFolder.
var folderFields = map[string]field[*folder]{
	"id":             texts(func(f *folder) string { return string(f.ID) }),
	"host":           texts(func(f *folder) string { return f.Host }),
	"name":           texts(func(f *folder) string { return f.Name }),
	"creator":        texts(func(f *folder) string { return f.Creator }),
	"user_email":     texts(func(f *folder) string { return text(f.UserEmail) }),
	"group":          texts(func(f *folder) string { return text(f.Group) }),
	"group_name":     texts(func(f *folder) string { return text(f.GroupName) }),
	"domain_name":    texts(func(f *folder) string { return f.DomainName }),
	"usage_mode":     texts(func(f *folder) string { return f.UsageMode }),
	"permission":     texts(func(f *folder) string { return f.Permission }),
	"ownership_type": texts(func(f *folder) string { return f.OwnershipType }),
	"status":         texts(func(f *folder) string { return f.Status }),
	"cloneable":      flags(func(f *folder) bool { return f.Cloneable }),
	"created_at":     times(func(f *folder) *dateTime { return f.CreatedAt }),
	"last_used":      times(func(f *folder) *dateTime { return f.LastUsed }),
	"cur_size":       {filter.Number, func(f *folder) any { return float64(f.CurSize) }},
	"max_size":       {filter.Number, func(f *folder) any { return float64(f.MaxSize) }},
	"num_files":      {filter.Number, func(f *folder) any { return float64(f.NumFiles) }},
}

// Vfolder is one folder by its id or name.
func (r *resolver) Vfolder(ctx context.Context, args struct{ ID *string }) (*folder, error) {
	v, err := r.opts.Folders.Find(ctx, callerOf(ctx), text(args.ID))
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return folderOf(v), nil
}

type folderArgs struct {
	page
	DomainName, AccessKey *string
}

// VfolderList is a page of the folders that the caller may see; superadmins see
// those of all users.
func (r *resolver) VfolderList(ctx context.Context, args struct {
	folderArgs
	GroupID *uuid
},
) (*folderList, error) {
	q := vfolder.ListQuery{All: callerOf(ctx).Superadmin()}
	if args.GroupID != nil {
		q.Group = string(*args.GroupID)
	}
	return r.folders(ctx, args.folderArgs, q, func(*folder) bool { return true })
}

// VfolderOwnList is a page of the caller's own folders.
func (r *resolver) VfolderOwnList(ctx context.Context, args folderArgs) (*folderList, error) {
	return r.folders(ctx, args, vfolder.ListQuery{}, func(f *folder) bool { return f.owned })
}

// VfolderInvitedList is a page of the folders that others share with the caller.
func (r *resolver) VfolderInvitedList(ctx context.Context, args folderArgs) (*folderList, error) {
	return r.folders(ctx, args, vfolder.ListQuery{}, func(f *folder) bool { return !f.owned && f.Group == nil })
}

// VfolderProjectList is a page of the folders of the caller's project.
func (r *resolver) VfolderProjectList(ctx context.Context, args folderArgs) (*folderList, error) {
	return r.folders(ctx, args, vfolder.ListQuery{}, func(f *folder) bool { return f.Group != nil })
}

func (r *resolver) folders(ctx context.Context, args folderArgs, q vfolder.ListQuery, wanted func(*folder) bool) (*folderList, error) {
	views, err := r.opts.Folders.List(ctx, callerOf(ctx), q)
	if err != nil {
		return nil, err
	}
	var all []*folder
	for _, v := range views {
		if f := folderOf(v); wanted(f) {
			all = append(all, f)
		}
	}
	items, total, err := pick(args.page, all, folderFields)
	if err != nil {
		return nil, err
	}
	return &folderList{items, total}, nil
}
