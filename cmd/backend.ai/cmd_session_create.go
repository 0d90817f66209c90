package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"backendai"
	"backendai/internal/client"
)

// createOptions are the options of start as they are written.
type createOptions struct {
	name, owner, kind, startsAt, startup, timeout       string
	callback, bootstrap, tag, architecture, sgroup      string
	clusterMode, preopen, domain, group, agent, network string
	depends, envs, mounts, volumes, resources, opts     []string
	enqueueOnly, noReuse                                bool
	maxWait, priority, clusterSize                      int
}

const startHelp = `Starts a session: an isolated container made from IMAGE, with a terminal, SSH and the apps that the image has. It waits until the session runs, shows the progress while an image is downloaded, and prints the names of the apps at the end; 'backend.ai app' leads to them.

A live session of the same name and image is used again, unless --no-reuse is given. Ctrl+C ends the waiting only: the session goes on starting.

Folders for -m are written NAME (mounted at /home/work/NAME), NAME=PATH or NAME:PATH (a PATH that does not begin with / lies below /home/work), or in the long form type=bind,source=NAME,target=PATH,perm=ro with the permissions ro, rw and wd. A backslash or quotes take the meaning of the characters = : and the comma. The folders in BACKEND_VFOLDER_MOUNTS, a comma list, are mounted in every session.`

// newStartCommand is "start", and "session create" under another name.
func newStartCommand(e *env, name string, aliases ...string) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use: name + " IMAGE", Aliases: aliases, Short: "Start a session", Long: startHelp, Args: arguments("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			request, err := o.request(args[0], c.Config(), cmd.Flags().Changed("priority"))
			if err != nil {
				return err
			}
			return e.start(cmd.Context(), c, request)
		},
	}
	o.flags(cmd.Flags())
	return document(cmd, manual{
		arguments: [][2]string{{"IMAGE", "alias (python), short name or full reference (registry/name:tag) of an image; 'backend.ai admin image list' shows them"}},
		examples: [][2]string{
			{"Start a session with Python", "backend.ai start -t mysession python"},
			{"Two cores, four gigabytes, and a folder of data that cannot be changed", "backend.ai start -t large -r cpu=2 -r mem=4g -m type=bind,source=data,perm=ro python"},
			{"Run a command and end", "backend.ai start --type batch -c 'python train.py' -m .ssh -m my.data=/data python"},
		},
		exits: [][2]string{{"3", "the session does not run yet after --max-wait seconds; it goes on starting"}},
	})
}

func (o *createOptions) flags(f *pflag.FlagSet) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(cmp.Or(createAliases[name], name))
	})
	f.StringVarP(&o.name, "name", "t", "", "`NAME` of the session (also --client-token): 4 to 64 letters, digits, dots, dashes and underscores; without it a random one")
	f.StringVarP(&o.owner, "owner", "o", "", "access `KEY` of the user whom the session is for (also --owner-access-key); for administrators; without it your own")
	f.StringVar(&o.kind, "type", string(backendai.Interactive), "`KIND` of session: interactive, batch, inference or system")
	f.StringVar(&o.startsAt, "starts-at", "", "start at the `TIME` (ISO 8601, or a duration from now such as 10m) and not before; batch only; without it at once")
	f.StringVarP(&o.startup, "startup-command", "c", "", "`COMMAND` of a batch session, which ends with it; batch only, and needed there")
	f.StringVar(&o.timeout, "batch-timeout", "", "end a batch session after the `TIME` (30m, 1d, or seconds; also --timeout); without it never")
	f.BoolVar(&o.enqueueOnly, "enqueue-only", false, "do not wait for the session")
	f.IntVar(&o.maxWait, "max-wait", 0, "wait at most so many `SECONDS`; without it as long as it takes")
	f.BoolVar(&o.noReuse, "no-reuse", false, "fail when there is a live session of that name")
	f.StringArrayVar(&o.depends, "depends", nil, "start after the session with the name or `ID` has succeeded")
	f.StringVar(&o.callback, "callback-url", "", "`URL` that gets a POST for each event of the session")
	f.StringArrayVarP(&o.envs, "env", "e", nil, "set the environment variable `NAME=VALUE` in the session")
	f.StringVar(&o.bootstrap, "bootstrap-script", "", "`FILE` with a shell script that runs in the session before its services start")
	f.StringVar(&o.tag, "tag", "", "free `TEXT` to find the session by")
	f.StringVar(&o.architecture, "arch", "", "`NAME` of the image's architecture, such as x86_64 (also --architecture); without it the server's")
	f.IntVar(&o.priority, "priority", 10, "`NUMBER` from 0 to 100; sessions with more go first")
	f.StringArrayVarP(&o.mounts, "mount", "m", nil, "mount the `FOLDER` (also -v, --volume)")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "the same as --mount, for a `FOLDER`")
	f.StringVar(&o.sgroup, "scaling-group", "", "`NAME` of the group of machines (also --sgroup); without it any")
	f.StringArrayVarP(&o.resources, "resources", "r", nil, "`SLOT=AMOUNT` of a resource: cpu=2, mem=4g (mem=256 means 256m), cuda.device=1; without it what the image needs at least")
	f.StringArrayVar(&o.opts, "resource-opts", nil, "`NAME=VALUE` of an option of resources: shmem=64m")
	f.IntVar(&o.clusterSize, "cluster-size", 1, "`NUMBER` of containers")
	f.StringVar(&o.clusterMode, "cluster-mode", "single-node", "`MODE` of several containers: single-node or multi-node")
	f.StringVar(&o.preopen, "preopen", "", "comma list of `PORTS` that are made available as apps of that number; without it none")
	f.StringVarP(&o.domain, "domain", "d", "", "`NAME` of the domain; without it that of the profile")
	f.StringVarP(&o.group, "group", "g", "", "`NAME` of the project; without it that of the profile")
	f.StringVar(&o.agent, "assign-agent", "", "comma list of the `IDS` of machines to use; for superadmins; without it any")
	f.StringVar(&o.network, "network", "", "name or `ID` of a network to attach; without it none")
}

var createAliases = map[string]string{
	"client-token": "name", "owner-access-key": "owner", "timeout": "batch-timeout", "architecture": "arch", "sgroup": "scaling-group",
}

// request checks the options and makes the request of them.
func (o *createOptions) request(image string, config client.Config, prioritised bool) (client.CreateRequest, error) {
	r := client.CreateRequest{
		Name: o.name, Image: image, Architecture: o.architecture, Type: backendai.SessionType(strings.ToLower(o.kind)),
		Domain: cmp.Or(o.domain, config.Domain), Group: cmp.Or(o.group, config.Group), Owner: o.owner, Tag: o.tag,
		Startup: o.startup, BatchTimeout: o.timeout, StartsAt: o.startsAt, Dependencies: o.depends, CallbackURL: o.callback,
		ClusterSize: o.clusterSize, ClusterMode: strings.ToLower(o.clusterMode), ScalingGroup: o.sgroup, Agents: split(o.agent),
		Network: o.network, EnqueueOnly: o.enqueueOnly, MaxWait: time.Duration(o.maxWait) * time.Second, NoReuse: o.noReuse,
	}
	if prioritised {
		r.Priority = &o.priority
	}
	if r.Name == "" {
		r.Name = randomName()
	}
	checks := []error{
		backendai.ValidateSessionName(r.Name), o.check(r), o.readPreopen(&r), o.readMounts(&r, config.Mounts),
		readPairs("-e", o.envs, &r.Environ), readPairs("-r", o.resources, &r.Resources), readPairs("--resource-opts", o.opts, &r.ResourceOpts),
		checkEnvs(r.Environ), checkResources(r.Resources, r.ResourceOpts),
	}
	for _, err := range checks {
		if err != nil {
			return r, usageError{err}
		}
	}
	if o.bootstrap != "" {
		script, err := os.ReadFile(o.bootstrap)
		if err != nil {
			return r, usagef("--bootstrap-script: %w", err)
		}
		r.Bootstrap = string(script)
	}
	return r, nil
}

func (o *createOptions) check(r client.CreateRequest) error {
	batch := r.Type == backendai.Batch
	switch {
	case !slices.Contains([]string{"interactive", "batch", "inference", "system"}, string(r.Type)):
		return fmt.Errorf("--type %s is none of interactive, batch, inference and system", o.kind)
	case !slices.Contains([]string{"single-node", "multi-node"}, r.ClusterMode):
		return fmt.Errorf("--cluster-mode %s is neither single-node nor multi-node", o.clusterMode)
	case batch && r.Startup == "":
		return errors.New("a batch session needs a command: -c COMMAND")
	case !batch && r.Startup != "":
		return errors.New("-c is for batch sessions: add --type batch")
	case !batch && r.StartsAt != "":
		return errors.New("--starts-at is for batch sessions: add --type batch")
	case !batch && r.BatchTimeout != "":
		return errors.New("--batch-timeout is for batch sessions: add --type batch")
	case o.maxWait < 0:
		return fmt.Errorf("--max-wait %d is less than zero", o.maxWait)
	case o.clusterSize < 1:
		return fmt.Errorf("--cluster-size %d is less than one", o.clusterSize)
	}
	return nil
}

func (o *createOptions) readPreopen(r *client.CreateRequest) error {
	for _, text := range split(o.preopen) {
		port, err := strconv.Atoi(text)
		if err != nil || port < 1024 || port > 65535 {
			return fmt.Errorf("--preopen: %q is not a port from 1024 to 65535", text)
		}
		r.PreopenPorts = append(r.PreopenPorts, port)
	}
	return nil
}

func (o *createOptions) readMounts(r *client.CreateRequest, always []string) error {
	for _, text := range slices.Concat(o.mounts, o.volumes) {
		m, err := parseMount(text)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(r.Mounts, func(o backendai.Mount) bool { return o.Source == m.Source }) {
			return fmt.Errorf("the folder %q is mounted twice", m.Source)
		}
		r.Mounts = append(r.Mounts, m)
	}
	for _, name := range always {
		if !slices.ContainsFunc(r.Mounts, func(m backendai.Mount) bool { return m.Source == name }) {
			r.Mounts = append(r.Mounts, backendai.Mount{Source: name})
		}
	}
	return nil
}

// readPairs reads NAME=VALUE texts; the first "=" splits.
func readPairs(option string, texts []string, into *map[string]string) error {
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		if name = strings.TrimSpace(name); !found || name == "" {
			return fmt.Errorf("%s %s: it has not the form NAME=VALUE", option, text)
		}
		if *into == nil {
			*into = map[string]string{}
		}
		(*into)[name] = value
	}
	return nil
}

func checkEnvs(envs map[string]string) error {
	for name := range envs {
		if !backendai.ValidEnvName(name) {
			return fmt.Errorf("-e %s: that is not the name of an environment variable", name)
		}
	}
	return nil
}

var bareNumberRE = regexp.MustCompile(`^\d+(\.\d*)?$`)

// checkResources checks amounts and writes out the unit of a bare amount of memory.
func checkResources(resources, opts map[string]string) error {
	for slot, amount := range resources {
		if slot == backendai.SlotMem && bareNumberRE.MatchString(amount) {
			amount += "m"
			resources[slot] = amount
		}
		if _, err := backendai.ParseAmount(slot, amount); err != nil {
			return fmt.Errorf("-r %s=%s: %w", slot, amount, err)
		}
	}
	if shmem, ok := opts["shmem"]; ok {
		if _, err := backendai.ParseSize(shmem); err != nil {
			return fmt.Errorf("--resource-opts shmem=%s: %w", shmem, err)
		}
	}
	return nil
}

// split reads a comma list.
func split(text string) (list []string) {
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one != "" {
			list = append(list, one)
		}
	}
	return list
}

func randomName() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return "session-" + hex.EncodeToString(b[:])
}

// start makes the session, shows what goes on meanwhile, and tells how it ended.
func (e *env) start(ctx context.Context, c *client.Client, r client.CreateRequest) error {
	w := startWatch{e: e, c: c, name: r.Name, owner: r.Owner}
	stop := w.begin(ctx)
	created, err := c.CreateSession(ctx, r)
	stop()
	if err != nil {
		if _, ok := errors.AsType[signalled](err); ok && w.waited {
			e.term.Info("The session %q goes on starting. 'backend.ai ps' shows it, 'backend.ai rm %s' removes it.", r.Name, r.Name)
		}
		return err
	}
	return e.started(r, created)
}

// started tells what became of a session.
func (e *env) started(r client.CreateRequest, s *client.Created) error {
	apps := make([]string, len(s.Apps))
	for i, a := range s.Apps {
		apps[i] = a.Name
	}
	item := map[string]any{"session_id": s.ID, "name": s.Name, "status": s.Status, "created": s.Created, "service_ports": s.Apps}
	say := func(format string, args ...any) error {
		if e.output == outputJSON {
			return e.term.JSON(mutation(item, format, args...))
		}
		e.term.Info(format, args...)
		return nil
	}
	switch s.Status {
	case backendai.StatusRunning:
		ready := "is created and ready"
		if !s.Created {
			ready = "is already running and ready"
		}
		text := fmt.Sprintf("Session %s (%s) %s.", s.Name, s.ID, ready)
		if len(apps) > 0 {
			text += "\nIt has these apps: " + strings.Join(apps, ", ")
		}
		return say("%s", text)
	case backendai.StatusPending:
		return say("Session %s (%s) is enqueued for scheduling.", s.Name, s.ID)
	case backendai.StatusScheduled:
		return say("Session %s (%s) is scheduled and about to start.", s.Name, s.ID)
	case client.StatusTimeout:
		why := ""
		if s.Message != "" {
			why = ": " + s.Message
		}
		err := backendai.Errorf(backendai.CodeUnavailable, "session %s (%s) is still on the way after %s%s", s.Name, s.ID, r.MaxWait, why).
			WithHint("it goes on starting; 'backend.ai ps' shows it, 'backend.ai rm %s' removes it", s.Name)
		return exitError{exitTimeout, err}
	case backendai.StatusTerminated, backendai.StatusError, backendai.StatusCancelled:
		if r.Type == backendai.Batch && s.Info == backendai.ReasonTaskFinished {
			return say("Session %s (%s) has finished its command.", s.Name, s.ID)
		}
		why := cmp.Or(s.Message, s.Info, "the server gives no reason")
		return backendai.Errorf(backendai.CodeCreationFailed, "session %s (%s) did not start: %s: %s", s.Name, s.ID, s.Status, why).
			WithHint("'backend.ai info %s' tells more, 'backend.ai logs %s' what it printed", s.ID, s.ID)
	default:
		return say("Session %s (%s) is being prepared: %s.", s.Name, s.ID, s.Status)
	}
}
