package graphql

import (
	"context"
	"maps"
	"slices"
	"strings"

	"backendai"
)

type image struct {
	ID, Name, HumanizedName, Registry, Architecture, Tag, Digest string
	SizeBytes                                                    bigInt
	Aliases, SupportedAccelerators                               []*string
	Labels                                                       []*kvPair
	Installed                                                    bool
}

type kvPair struct{ Key, Value string }

// Images are those on this machine; everyone may see them.
func (r *resolver) Images(ctx context.Context, _ struct{ IsInstalled, IsOperation *bool }) ([]*image, error) {
	all, err := r.opts.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]*image, 0, len(all))
	for _, i := range all {
		list = append(list, imageOf(i))
	}
	return list, nil
}

// Image is one by reference, short name or alias, if it is on this machine.
func (r *resolver) Image(ctx context.Context, args struct {
	Reference    string
	Architecture *string
},
) (*image, error) {
	i, err := r.opts.Images.Resolve(ctx, args.Reference, text(args.Architecture))
	if missing(err) || err == nil && !i.Present() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return imageOf(i), nil
}

func imageOf(i backendai.Image) *image {
	host, rest, _ := strings.Cut(i.Ref, "/")
	name, tag := rest, ""
	if at := strings.LastIndexByte(rest, ':'); at >= 0 {
		name, tag = rest[:at], rest[at+1:]
	}
	item := &image{
		ID: i.Digest, Name: name, HumanizedName: name, Registry: host, Architecture: i.Architecture, Tag: tag, Digest: i.Digest,
		SizeBytes: bigInt(i.Size), Installed: i.Present(), Aliases: pointers(i.Aliases),
		SupportedAccelerators: pointers(nil), Labels: []*kvPair{},
	}
	for _, k := range slices.Sorted(maps.Keys(i.Labels)) {
		item.Labels = append(item.Labels, &kvPair{k, i.Labels[k]})
	}
	return item
}

// pointers is a list as the executor wants one whose elements may be null.
func pointers(texts []string) []*string {
	list := []*string{}
	for _, t := range texts {
		list = append(list, &t)
	}
	return list
}

// AliasImage gives an image another name.
func (r *resolver) AliasImage(ctx context.Context, args struct {
	Alias, Target string
	Architecture  *string
},
) (*done, error) {
	if err := superadminOnly(ctx); err != nil {
		return nil, err
	}
	return answer(r.opts.Images.Alias(ctx, args.Alias, args.Target))
}

// DealiasImage takes a name away.
func (r *resolver) DealiasImage(ctx context.Context, args struct{ Alias string }) (*done, error) {
	if err := superadminOnly(ctx); err != nil {
		return nil, err
	}
	return answer(r.opts.Images.Dealias(ctx, args.Alias))
}

type rescanImages struct {
	done
	TaskID *string
}

// RescanImages is for servers that keep a list of what registries have. This
// one asks a registry when it needs an image of it, and has no list.
func (r *resolver) RescanImages(ctx context.Context, _ struct{ Registry, Project *string }) (*rescanImages, error) {
	if err := superadminOnly(ctx); err != nil {
		return nil, err
	}
	return &rescanImages{done: done{Msg: "this server keeps no list of its registries' images: it finds an image when a session or 'backend.ai image pull' names it"}}, nil
}
