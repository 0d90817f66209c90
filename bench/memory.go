//go:build linux

package main

import (
	"context"
	"net"
	"strconv"
	"time"
)

// memorySession is the idle session.
const memorySession = "bench-memory"

// memory measures what is there when nothing happens.
func (b *bench) memory(ctx context.Context) error {
	p := b.platform
	if err := b.help(ctx); err != nil {
		return err
	}
	if _, err := p.session(ctx, memorySession); err != nil {
		return err
	}
	if err := b.install(ctx, memorySession); err != nil {
		return err
	}
	var idle, inside, own, server, near series
	for range b.rounds(5) {
		// A new server, so that what came before does not count.
		if err := p.restart(ctx); err != nil {
			return err
		}
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		before, err := resident(p.server.Process.Pid)
		if err != nil {
			return err
		}
		idle = append(idle, before)
		if err := b.tunnels(ctx, before, &server, &near); err != nil {
			return err
		}
	}
	for range b.rounds(5) {
		if err := b.fresh(ctx, &inside, &own); err != nil {
			return err
		}
	}
	b.table.add(row{"memory: server, idle", idle, mebibytes, "", nil, budget{atMost, 60 << 20}})
	b.table.add(row{"memory: runner of an idle session", inside, mebibytes, "", nil, budget{atMost, 10 << 20}})
	b.table.add(row{"memory: of that not shared with other sessions", own, mebibytes, "", nil, budget{}})
	b.table.add(row{"memory: open tunnel, server's side", server, mebibytes, "", nil, budget{atMost, 20 << 10}})
	b.table.add(row{"memory: open tunnel, client's side", near, mebibytes, "", nil, budget{}})
	return p.remove(ctx, memorySession)
}

// fresh measures the runner of a new session, and what of its memory is not that
// of the program's file, which all sessions share.
func (b *bench) fresh(ctx context.Context, to, own *series) error {
	const name = "bench-fresh"
	p := b.platform
	if _, err := p.session(ctx, name); err != nil {
		return err
	}
	id, err := p.id(ctx, name)
	if err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	pid, err := runner(id)
	if err != nil {
		return err
	}
	size, err := resident(pid)
	if err != nil {
		return err
	}
	private, err := memoryField(pid, "RssAnon")
	if err != nil {
		return err
	}
	*to, *own = append(*to, size), append(*own, private)
	return p.remove(ctx, name)
}

// tunnels opens many, through each of which a byte has gone, and tells what one
// of them costs the processes at its ends.
func (b *bench) tunnels(ctx context.Context, before float64, server, near *series) error {
	const tunnels = 500
	p := b.platform
	way, err := p.app(ctx, memorySession, strconv.Itoa(appPort))
	if err != nil {
		return err
	}
	defer way.close()
	nearBefore, err := resident(way.cmd.Process.Pid)
	if err != nil {
		return err
	}
	conns := make([]net.Conn, 0, tunnels)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range tunnels {
		c, err := dial(ctx, way.port, "echo 0")
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if err := once(c); err != nil {
			return err
		}
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	after, err := resident(p.server.Process.Pid)
	if err != nil {
		return err
	}
	nearAfter, err := resident(way.cmd.Process.Pid)
	if err != nil {
		return err
	}
	*server = append(*server, (after-before)/tunnels)
	*near = append(*near, (nearAfter-nearBefore)/tunnels)
	return nil
}

// help measures the start of the client, in turn with a program that does nothing.
func (b *bench) help(ctx context.Context) error {
	var client, nothing series
	for range b.rounds(30) {
		took, err := timed(b.platform.command(ctx, "--help"))
		if err != nil {
			return err
		}
		client.add(took)
		if took, err = timed(b.platform.exec(ctx, "/bin/true")); err != nil {
			return err
		}
		nothing.add(took)
	}
	b.table.add(row{"backend.ai --help", client, milliseconds, "/bin/true", nothing, budget{atMost, 0.020}})
	return nil
}
