package graphql

import (
	"context"
	"runtime"
	"slices"
	"strings"

	"backendai"
	"backendai/internal/session"
)

type agent struct {
	ID, Status, Region, Architecture, ScalingGroup, Version                string
	Schedulable                                                            bool
	FirstContact                                                           *dateTime
	CPUCurPct, MemCurBytes                                                 float64
	AvailableSlots, OccupiedSlots, HardwareMetadata, LiveStat, LocalConfig jsonString
}

type agentList struct {
	Items      []*agent
	TotalCount int32
}

type agentArgs struct{ ScalingGroup, Status *string }

// Agents has this machine, for superadmins.
func (r *resolver) Agents(ctx context.Context, args agentArgs) ([]*agent, error) {
	if err := superadminOnly(ctx); err != nil {
		return nil, err
	}
	a, err := r.machine(ctx)
	if err != nil {
		return nil, err
	}
	asked := strings.Split(strings.ToUpper(text(args.Status)), ",")
	if text(args.ScalingGroup) != "" && *args.ScalingGroup != a.ScalingGroup || text(args.Status) != "" && !slices.Contains(asked, a.Status) {
		return []*agent{}, nil
	}
	return []*agent{a}, nil
}

// AgentList is a page of Agents.
func (r *resolver) AgentList(ctx context.Context, args struct {
	page
	agentArgs
},
) (*agentList, error) {
	if err := args.plain(); err != nil {
		return nil, err
	}
	all, err := r.Agents(ctx, args.agentArgs)
	if err != nil {
		return nil, err
	}
	return &agentList{cut(args.page, all), int32(len(all))}, nil
}

// Agent is this machine by its id.
func (r *resolver) Agent(ctx context.Context, args struct{ AgentID string }) (*agent, error) {
	all, err := r.Agents(ctx, agentArgs{})
	if err != nil || args.AgentID != agentName {
		return nil, err
	}
	return all[0], nil
}

func (r *resolver) machine(ctx context.Context) (*agent, error) {
	capacity, err := r.opts.Capacity(ctx)
	if err != nil {
		return nil, err
	}
	var holding []backendai.Status
	for _, s := range backendai.Statuses() {
		if s.Occupies() {
			holding = append(holding, s)
		}
	}
	sessions, _, err := r.opts.Sessions.List(ctx, callerOf(ctx), session.Query{Statuses: holding})
	if err != nil {
		return nil, err
	}
	held := backendai.Slots{}
	for slot := range capacity {
		held[slot] = 0
	}
	for _, s := range sessions {
		held = held.Add(s.Requested)
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return &agent{
		ID: agentName, Status: "ALIVE", Region: "local", Architecture: arch, ScalingGroup: scalingGroupName, Version: r.opts.Version,
		Schedulable: true, FirstContact: when(r.opts.Started), AvailableSlots: jsonOf(capacity.Wire()), OccupiedSlots: jsonOf(held.Wire()),
		HardwareMetadata: noJSON, LiveStat: noJSON, LocalConfig: noJSON,
	}, nil
}

type group struct {
	ID                            uuid
	Name, Description, DomainName string
	IsActive                      bool
}

// Groups has the caller's project: there is one.
func (r *resolver) Groups(ctx context.Context, _ struct {
	DomainName *string
	IsActive   *bool
},
) ([]*group, error) {
	u := callerOf(ctx).User
	return []*group{{ID: uuid(u.Group), Name: u.Group, DomainName: u.Domain, IsActive: true}}, nil
}

type domain struct {
	Name, Description string
	IsActive          bool
}

// Domains has the caller's domain: there is one.
func (r *resolver) Domains(ctx context.Context, _ struct{ IsActive *bool }) ([]*domain, error) {
	return []*domain{{Name: callerOf(ctx).User.Domain, IsActive: true}}, nil
}

// Domain is the caller's domain by its name.
func (r *resolver) Domain(ctx context.Context, args struct{ Name *string }) (*domain, error) {
	own := callerOf(ctx).User.Domain
	if args.Name != nil && *args.Name != own {
		return nil, nil
	}
	return &domain{Name: own, IsActive: true}, nil
}

type scalingGroup struct {
	Name, Description, Driver, Scheduler string
	IsActive                             bool
}

// ScalingGroup is the one group that a machine is, by its name.
func (r *resolver) ScalingGroup(args struct{ Name *string }) *scalingGroup {
	if args.Name != nil && *args.Name != scalingGroupName {
		return nil
	}
	return &scalingGroup{Name: scalingGroupName, Driver: "static", Scheduler: "fifo", IsActive: true}
}

// ScalingGroups has the one group that a machine is.
func (r *resolver) ScalingGroups(args struct {
	Name     *string
	IsActive *bool
},
) []*scalingGroup {
	if g := r.ScalingGroup(struct{ Name *string }{args.Name}); g != nil {
		return []*scalingGroup{g}
	}
	return []*scalingGroup{}
}

type keyPairResourcePolicy struct {
	Name, DefaultForUnspecified                    string
	CreatedAt                                      *dateTime
	TotalResourceSlots, AllowedVfolderHosts        jsonString
	MaxConcurrentSessions, MaxContainersPerSession int32
	MaxVfolderCount                                int32
	MaxVfolderSize, IdleTimeout                    bigInt
}

const policyName = "default"

// KeypairResourcePolicy is the one policy: the machine itself is the limit.
func (r *resolver) KeypairResourcePolicy(ctx context.Context, args struct{ Name *string }) (*keyPairResourcePolicy, error) {
	if args.Name != nil && *args.Name != policyName {
		return nil, nil
	}
	capacity, err := r.opts.Capacity(ctx)
	if err != nil {
		return nil, err
	}
	return &keyPairResourcePolicy{
		Name: policyName, DefaultForUnspecified: "UNLIMITED", CreatedAt: when(r.opts.Started), TotalResourceSlots: jsonOf(capacity.Wire()),
		AllowedVfolderHosts: noJSON, MaxContainersPerSession: 1,
	}, nil
}

// KeypairResourcePolicies has the one policy.
func (r *resolver) KeypairResourcePolicies(ctx context.Context) ([]*keyPairResourcePolicy, error) {
	p, err := r.KeypairResourcePolicy(ctx, struct{ Name *string }{})
	if err != nil {
		return nil, err
	}
	return []*keyPairResourcePolicy{p}, nil
}
