package oci

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"

	"backendai"
)

// Capacity implements [engine.Engine]: the processors that this process may use
// and the machine's memory, or less where its own cgroup allows less, unless
// configured.
func (e *Engine) Capacity(context.Context) (backendai.Slots, error) {
	slots := backendai.Slots{}
	mem, err := totalMemory()
	if err != nil {
		return nil, err
	}
	slots[backendai.SlotMem] = mem
	slots[backendai.SlotCPU] = int64(runtime.NumCPU()) * 1000
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find own cgroup: %w", err)
	}
	limit := e.machine.limits(own)
	for slot, amount := range limit {
		slots[slot] = min(slots[slot], amount)
	}
	maps.Copy(slots, e.capacity)
	return slots, nil
}

func totalMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the machine's memory: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("read the machine's memory: no MemTotal in /proc/meminfo")
}

// limits reads what the cgroup of a process allows it; own is its
// /proc/<pid>/cgroup.
func (m machine) limits(own []byte) backendai.Slots {
	slots := backendai.Slots{}
	for line := range bytes.Lines(own) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case m.unified && parts[1] == "":
			dir := cgroupRoot + parts[2]
			m.limit(slots, backendai.SlotMem, number(dir+"/memory.max"))
			if quota, period, ok := strings.Cut(word(dir+"/cpu.max"), " "); ok {
				m.limit(slots, backendai.SlotCPU, ratio(quota, period))
			}
		case strings.Contains(","+parts[1]+",", ",memory,"):
			m.limit(slots, backendai.SlotMem, number(cgroupRoot+"/memory"+parts[2]+"/memory.limit_in_bytes"))
		case strings.Contains(","+parts[1]+",", ",cpu,"):
			dir := cgroupRoot + "/cpu" + parts[2]
			m.limit(slots, backendai.SlotCPU, ratio(word(dir+"/cpu.cfs_quota_us"), word(dir+"/cpu.cfs_period_us")))
		}
	}
	return slots
}

func (machine) limit(slots backendai.Slots, slot string, amount int64) {
	if amount > 0 {
		slots[slot] = amount
	}
}

func word(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "" // no such controller, so no limit
	}
	return strings.TrimSpace(string(b))
}

// number reads a limit; 0 is none.
func number(file string) int64 {
	n, err := strconv.ParseInt(word(file), 10, 64)
	if err != nil {
		return 0 // "max"
	}
	return n
}

// ratio is a processor quota in thousandths; 0 is none.
func ratio(quota, period string) int64 {
	q, err1 := strconv.ParseInt(quota, 10, 64)
	p, err2 := strconv.ParseInt(period, 10, 64)
	if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0
	}
	return q * 1000 / p
}

// Logs implements [engine.Engine].
func (e *Engine) Logs(_ context.Context, id string, limit int64) (io.ReadCloser, error) {
	s, err := e.find(id)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(logFile))
	if errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log of session %s: %w", id, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read log of session %s: %w", id, err), f.Close())
	}
	size, limit := info.Size(), max(limit, 0)
	start := max(size-limit, 0)
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, start, size-start), f}, nil
}
