package oci

import "testing"

func TestParseOOMKills(t *testing.T) {
	for text, want := range map[string]int{
		"low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n": 1, // memory.events of cgroup v2
		"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n":                3, // memory.oom_control of v1
		"oom_kill_disable 0\nunder_oom 0\n":                            0, // v1 before Linux 4.13
		"oom_kill x\n":                                                 0,
		"":                                                             0,
	} {
		if got := parseOOMKills([]byte(text)); got != want {
			t.Errorf("%q tells of %d kills, want %d", text, got, want)
		}
	}
}

func TestRatio(t *testing.T) {
	for pair, want := range map[[2]string]int64{
		{"150000", "100000"}: 1500, {"50000", "100000"}: 500, {"max", "100000"}: 0, {"-1", "100000"}: 0, {"1", "0"}: 0, {"", ""}: 0,
	} {
		if got := ratio(pair[0], pair[1]); got != want {
			t.Errorf("a quota of %v is %d thousandths, want %d", pair, got, want)
		}
	}
}
