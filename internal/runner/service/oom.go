package service

import (
	"os"
	"strconv"
	"strings"
)

// OOMKills counts how often the memory limit has killed a process of this
// session, as its own cgroup says; 0 where that cannot be seen.
func OOMKills() int {
	for _, path := range []string{
		"/sys/fs/cgroup/memory.events",             // cgroup v2
		"/sys/fs/cgroup/memory/memory.oom_control", // cgroup v1
	} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if count, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
				if n, err := strconv.Atoi(count); err == nil {
					return n
				}
			}
		}
	}
	return 0
}
