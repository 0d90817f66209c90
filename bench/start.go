//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"backendai"
	"backendai/internal/client"
)

// start measures how long a session takes to start, alone and among others.
func (b *bench) start(ctx context.Context) error {
	p := b.platform
	if _, err := p.session(ctx, "bench-model"); err != nil {
		return err
	}
	id, err := p.id(ctx, "bench-model")
	if err != nil {
		return err
	}
	bare, err := b.newBare(id)
	if err != nil {
		return err
	}
	defer bare.close()
	docker, err := b.newDocker(ctx, bare.rootfs)
	if err != nil {
		b.table.note("docker run was not measured: %v", err)
	}
	if docker != nil {
		defer docker.close(context.WithoutCancel(ctx))
	}
	var command, call, removal, bared, dockered series
	for i := range b.rounds(30) {
		name := fmt.Sprintf("bench-start-%d", i)
		for _, try := range []struct {
			to  *series
			run func(context.Context) (time.Duration, error)
		}{
			{&command, func(ctx context.Context) (time.Duration, error) { return p.session(ctx, name) }},
			{&removal, func(ctx context.Context) (time.Duration, error) {
				began := time.Now()
				err := p.remove(ctx, name)
				return time.Since(began), err
			}},
			{&bared, bare.run},
			{&call, func(ctx context.Context) (time.Duration, error) { return p.call(ctx, name) }},
			{&dockered, docker.run},
		} {
			if try.to == &dockered && docker == nil {
				continue
			}
			took, err := try.run(ctx)
			if err != nil {
				return err
			}
			try.to.add(took)
			if err := pause(ctx, 100*time.Millisecond); err != nil { // the kernel's work after an end is not the next one's
				return err
			}
		}
	}
	b.table.add(row{"start: process until RUNNING", command, milliseconds, "runtime alone", bared, budget{ratioAtMost, 1.2}})
	if docker != nil {
		b.table.add(row{"start: process until RUNNING", command, milliseconds, "docker run", dockered, budget{ratioAtMost, 0.2}})
	}
	b.table.add(row{"start: POST /session until its answer", call, milliseconds, "runtime alone", bared, budget{}})
	b.table.add(row{"rm: process until removed", removal, milliseconds, "", nil, budget{}})
	return errors.Join(p.remove(ctx, "bench-model"), b.together(ctx))
}

// call starts a session without a process of its own, and removes it.
func (p *platform) call(ctx context.Context, name string) (time.Duration, error) {
	began := time.Now()
	created, err := p.api.CreateSession(ctx, client.CreateRequest{Name: name, Image: imageName})
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	if created.Status != backendai.StatusRunning {
		return 0, fmt.Errorf("session %s is %s: %s", name, created.Status, created.Message)
	}
	_, err = p.api.DestroySession(ctx, name, client.DestroyOptions{Forced: true})
	return took, err
}

// together starts a hundred sessions at once and removes them at once.
func (b *bench) together(ctx context.Context) error {
	const sessions = 100
	p := b.platform
	var ready, removed, failed, cost series
	for round := range b.rounds(5) {
		before, err := processorTime(p.server.Process.Pid)
		if err != nil {
			return err
		}
		name := func(i int) string { return fmt.Sprintf("bench-many-%d-%d", round, i) }
		began := time.Now()
		faults := inParallel(sessions, func(i int) error {
			created, err := p.api.CreateSession(ctx, client.CreateRequest{Name: name(i), Image: imageName})
			if err == nil && created.Status != backendai.StatusRunning {
				err = fmt.Errorf("session %s is %s: %s", name(i), created.Status, created.Message)
			}
			return err
		})
		ready.add(time.Since(began))
		failed = append(failed, float64(len(faults)))
		began = time.Now()
		left := inParallel(sessions, func(i int) error {
			_, err := p.api.DestroySession(ctx, name(i), client.DestroyOptions{Forced: true})
			return err
		})
		removed.add(time.Since(began))
		after, err := processorTime(p.server.Process.Pid)
		if err != nil {
			return err
		}
		cost.add((after - before) / sessions)
		if len(faults) > 0 {
			b.table.note("of the starts at once failed %d: %v", len(faults), faults[0])
		} else if len(left) > 0 {
			return errors.Join(left...)
		}
	}
	b.table.add(row{"100 starts at once: until all run", ready, milliseconds, "", nil, budget{atMost, 5}})
	b.table.add(row{"100 starts at once: failed", failed, number, "", nil, budget{atMost, 0}})
	b.table.add(row{"100 removals at once", removed, milliseconds, "", nil, budget{}})
	b.table.add(row{"processor time of a start and removal", cost, milliseconds, "", nil, budget{atMost, 0.025}})
	return nil
}

// inParallel calls do with 0 to n-1 at the same time and gives what failed.
func inParallel(n int, do func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	failed := errs[:0]
	for _, err := range errs {
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// bare runs /bin/true as a session runs its PID 1, by the runtime alone.
type bare struct {
	runtime string
	dir     string
	rootfs  string
}

// newBare takes over the specification of a live session. What it needs is in
// memory, as what runtimes keep is.
func (b *bench) newBare(id string) (_ *bare, err error) {
	r := &bare{dir: filepath.Join(b.dir, "bare")}
	r.rootfs = filepath.Join(r.dir, "rootfs")
	if r.runtime, err = exec.LookPath("crun"); err != nil {
		return nil, fmt.Errorf("find the runtime: %w", err)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	if err := unix.Mount("bench", r.dir, "tmpfs", 0, "mode=0755"); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, name := range []string{"rootfs", "upper", "work", "state", "home", "files"} {
		if err := os.Mkdir(filepath.Join(r.dir, name), 0o755); err != nil {
			return nil, fmt.Errorf("make bundle: %w", err)
		}
	}
	layers, bundle, err := overlay(b.platform.server.Process.Pid, id)
	if err != nil {
		return nil, err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile", strings.Join(layers, ":"), r.dir, r.dir)
	if err := unix.Mount("overlay", r.rootfs, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, fmt.Errorf("mount the image's root: %w", err)
	}
	return r, r.specify(fmt.Sprintf("/proc/%d/root", b.platform.server.Process.Pid), bundle)
}

// specify writes the specification of a session's bundle, which is where another
// process sees it below root, for the runtime alone.
func (r *bare) specify(root, bundle string) error {
	text, err := os.ReadFile(root + bundle + "/config.json")
	if err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	spec.Root.Path = r.rootfs
	spec.Process.Args = []string{"/bin/true"}
	spec.Annotations = nil // with the compiled seccomp program: the runtime compiles
	spec.Linux.CgroupsPath = "/backend.ai-bench"
	for i := range spec.Linux.Namespaces {
		spec.Linux.Namespaces[i].Path = "" // the runtime makes them
	}
	for i, m := range spec.Mounts {
		switch own := filepath.Join(r.dir, "files", filepath.Base(m.Source)); {
		case m.Destination == "/home/work":
			spec.Mounts[i].Source = filepath.Join(r.dir, "home")
		case strings.HasPrefix(m.Source, bundle+"/"): // is seen by the server alone
			content, err := os.ReadFile(root + m.Source)
			if err == nil {
				err = os.WriteFile(own, content, 0o644)
			}
			if err != nil {
				return fmt.Errorf("copy %s: %w", m.Destination, err)
			}
			spec.Mounts[i].Source = own
		}
	}
	if text, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(filepath.Join(r.dir, "config.json"), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write specification: %w", err)
	}
	return nil
}

// overlay is the root of the session with this id where a process sees it: the
// folders that make it up, topmost first, and the bundle that it is part of.
func overlay(pid int, id string) (layers []string, bundle string, err error) {
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, "", fmt.Errorf("read mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.Contains(fields[4], id) {
			continue
		}
		for option := range strings.SplitSeq(fields[len(fields)-1], ",") {
			switch name, value, _ := strings.Cut(option, "="); name {
			case "lowerdir+":
				layers = append(layers, value)
			case "lowerdir":
				layers = append(layers, strings.Split(value, ":")...)
			}
		}
		if len(layers) > 0 {
			return layers, filepath.Dir(fields[4]), nil
		}
	}
	return nil, "", fmt.Errorf("find the root of session %s: it is not mounted", id)
}

func (r *bare) run(ctx context.Context) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, r.runtime, "--root", filepath.Join(r.dir, "state"), "run", "--bundle", r.dir, "bench-bare")
	cmd.Dir = "/"
	return timed(cmd)
}

func (r *bare) close() {
	_ = unix.Unmount(r.rootfs, unix.MNT_DETACH) // else they go with our mount namespace
	_ = unix.Unmount(r.dir, unix.MNT_DETACH)
}

// docker runs the same root by Docker.
type docker struct{ image string }

// newDocker imports a root; its error tells why there is no Docker to measure.
func (b *bench) newDocker(ctx context.Context, rootfs string) (*docker, error) {
	path, err := exec.LookPath("docker")
	if err != nil {
		return nil, errors.New("there is no Docker")
	}
	if err := exec.CommandContext(ctx, path, "version").Run(); err != nil {
		return nil, errors.New("no Docker daemon answers")
	}
	d := &docker{"backend.ai-bench:1"}
	load := exec.CommandContext(ctx, "sh", "-c", `tar -C "$0" -c . | docker import - "$1"`, rootfs, d.image)
	if _, err := timed(load); err != nil {
		return nil, err
	}
	return d, nil
}

// run tells how long it takes until the container has said something.
func (d *docker) run(ctx context.Context) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "docker", "run", "--rm", d.image, "/bin/echo", "up")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fmt.Errorf("run docker: %w", err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run docker: %w", err)
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	took := time.Since(began)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return 0, fmt.Errorf("run docker: %w", err)
	}
	return took, nil
}

func (d *docker) close(ctx context.Context) {
	_ = exec.CommandContext(ctx, "docker", "rmi", d.image).Run() // of what is ours alone
}
