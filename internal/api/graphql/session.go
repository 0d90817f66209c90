package graphql

import (
	"context"
	"slices"
	"strings"

	"backendai"
	"backendai/internal/session"
)

const (
	scalingGroupName = "default"
	agentName        = "i-local" // this machine, the only agent
	noJSON           = jsonString("{}")
)

// computeSession is the type ComputeSession.
type computeSession struct {
	ID, SessionID, MainKernelID, UserID                    uuid
	Name, Type, Image, Architecture, Registry              string
	Tag, UserEmail, FullName, CreatedUserEmail             *string
	StartupCommand, CommitStatus                           *string
	ClusterMode, DomainName, GroupID, GroupName, AccessKey string
	Status, StatusInfo, Result, ScalingGroup               string
	Priority, ClusterSize                                  int32
	NumQueries                                             bigInt
	StatusData, StatusHistory, ResourceOpts, ServicePorts  jsonString
	OccupiedSlots, OccupyingSlots, RequestedSlots          jsonString
	IdleChecks                                             jsonString
	StatusChanged, CreatedAt, TerminatedAt                 *dateTime
	StartsAt, ScheduledAt                                  *dateTime
	Mounts, VfolderMounts, Agents, AgentIDs                []*string
	Containers                                             []*computeContainer

	resolver *resolver
	needs    []string // ids of the sessions that it depends on
}

// computeContainer is the type ComputeContainer: a session has one.
type computeContainer struct {
	ID, SessionID                             uuid
	ContainerID, ClusterRole, ClusterHostname string
	ClusterIdx                                int32
	Image, Architecture, Registry             string
	Status, StatusInfo, Agent, AgentID        string
	StatusData, ResourceOpts, OccupiedSlots   jsonString
	LiveStat, LastStat                        jsonString
	StatusChanged, CreatedAt, TerminatedAt    *dateTime
	PreopenPorts                              []*int32
}

type computeSessionList struct {
	Items      []*computeSession
	TotalCount int32
}

// ComputeSession finds one session by its id, also one that has ended.
func (r *resolver) ComputeSession(ctx context.Context, args struct{ ID uuid }) (*computeSession, error) {
	s, err := r.opts.Sessions.Find(ctx, callerOf(ctx), string(args.ID), true)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.session(s), nil
}

// ComputeSessionList lists the caller's sessions; superadmins see all.
func (r *resolver) ComputeSessionList(ctx context.Context, args struct {
	page
	DomainName   *string
	GroupID      *string
	AccessKey    *string
	Status       *string
	ScalingGroup *string
},
) (*computeSessionList, error) {
	if err := args.check(); err != nil {
		return nil, err
	}
	q := session.Query{
		AccessKey: text(args.AccessKey), Filter: text(args.Filter), Order: text(args.Order),
		Offset: int(args.Offset), Limit: int(args.Limit),
	}
	if text(args.Status) != "" {
		if q.Statuses = statuses(*args.Status); len(q.Statuses) == 0 {
			return &computeSessionList{}, nil // only statuses of other generations
		}
	}
	found, total, err := r.opts.Sessions.List(ctx, callerOf(ctx), q)
	if err != nil {
		return nil, err
	}
	list := &computeSessionList{TotalCount: int32(total)}
	for _, s := range found {
		list.Items = append(list.Items, r.session(s))
	}
	if q.Limit == 0 {
		list.Items = nil // the service takes 0 for all
	}
	return list, nil
}

// statuses reads a comma list and leaves out the names of other generations.
func statuses(list string) []backendai.Status {
	var known []backendai.Status
	for name := range strings.SplitSeq(list, ",") {
		if s := backendai.Status(strings.ToUpper(strings.TrimSpace(name))); slices.Contains(backendai.Statuses(), s) {
			known = append(known, s)
		}
	}
	return known
}

// Dependencies are the sessions that must succeed before this one starts.
func (s *computeSession) Dependencies(ctx context.Context) ([]*computeSession, error) {
	list := []*computeSession{}
	for _, id := range s.needs {
		needed, err := s.resolver.opts.Sessions.Find(ctx, callerOf(ctx), id, true)
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s.resolver.session(needed))
	}
	return list, nil
}

func (r *resolver) session(s *backendai.Session) *computeSession {
	slots := occupied(s)
	history := map[string]*dateTime{}
	for _, step := range s.History {
		history[string(step.Status)] = when(step.At)
	}
	opts := jsonOf(map[string]int64{"shmem": s.Shmem})
	id := uuid(s.ID)
	host := agentName
	mounts := []*string{}
	for _, m := range s.Mounts {
		mounts = append(mounts, &m.Source)
	}
	return &computeSession{
		ID: id, SessionID: id, MainKernelID: id, UserID: uuid(s.UserID),
		Name: s.Name, Type: strings.ToUpper(string(s.Type)), Image: s.Image, Architecture: s.Architecture, Registry: registry(s.Image),
		Tag: optional(s.Tag), StartupCommand: optional(s.Startup), UserEmail: optional(s.UserEmail),
		ClusterMode: "SINGLE_NODE", DomainName: s.Domain, GroupID: s.Group, GroupName: s.Group, AccessKey: s.AccessKey,
		Status: string(s.Status), StatusInfo: s.StatusInfo, Result: string(result(s)), ScalingGroup: scalingGroupName,
		Priority: int32(s.Priority), ClusterSize: int32(max(1, s.ClusterSize)),
		StatusData: statusData(s), StatusHistory: jsonOf(history), ResourceOpts: opts, ServicePorts: jsonOf(apps(s)),
		OccupiedSlots: slots, OccupyingSlots: slots, RequestedSlots: jsonOf(s.Requested.Wire()), IdleChecks: noJSON,
		StatusChanged: when(s.StatusChanged), CreatedAt: when(s.CreatedAt), TerminatedAt: when(s.TerminatedAt),
		StartsAt: when(s.StartsAt), ScheduledAt: history[string(backendai.StatusScheduled)],
		Mounts: mounts, VfolderMounts: mounts, Agents: []*string{&host}, AgentIDs: []*string{&host},
		Containers: []*computeContainer{r.container(s, slots, opts)},
		resolver:   r, needs: s.Dependencies,
	}
}

func (r *resolver) container(s *backendai.Session, slots, opts jsonString) *computeContainer {
	ports := []*int32{}
	for _, p := range s.PreopenPorts {
		port := int32(p)
		ports = append(ports, &port)
	}
	return &computeContainer{
		ID: uuid(s.ID), SessionID: uuid(s.ID), ContainerID: s.ID, ClusterRole: "main", ClusterIdx: 1, ClusterHostname: "main1",
		Image: s.Image, Architecture: s.Architecture, Registry: registry(s.Image),
		Status: string(s.Status), StatusInfo: s.StatusInfo, Agent: agentName, AgentID: agentName,
		StatusData: statusData(s), ResourceOpts: opts, OccupiedSlots: slots, LiveStat: noJSON, LastStat: noJSON,
		StatusChanged: when(s.StatusChanged), CreatedAt: when(s.CreatedAt), TerminatedAt: when(s.TerminatedAt), PreopenPorts: ports,
	}
}

// occupied is what a session holds now.
func occupied(s *backendai.Session) jsonString {
	if !s.Status.Occupies() {
		return noJSON
	}
	return jsonOf(s.Requested.Wire())
}

func result(s *backendai.Session) backendai.Result {
	if s.Result == "" {
		return backendai.ResultUndefined
	}
	return s.Result
}

// statusData carries the line for people and the exit code, where there are any.
func statusData(s *backendai.Session) jsonString {
	data := map[string]any{}
	if s.StatusMessage != "" {
		data["message"] = s.StatusMessage
	}
	if s.ExitCode != nil {
		data["exit_code"] = *s.ExitCode
	}
	return jsonOf(data)
}

func apps(s *backendai.Session) []backendai.App {
	if s.Apps == nil {
		return []backendai.App{}
	}
	return s.Apps
}

func registry(ref string) string {
	host, _, _ := strings.Cut(ref, "/")
	return host
}
