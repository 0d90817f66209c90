package api

import (
	"testing"
	"time"
)

func TestLimiterRolls(t *testing.T) {
	var l limiter
	start := time.Unix(1_000_000, 0)
	for i := range 10 {
		if n := l.count("a", start); n != i+1 {
			t.Fatalf("request %d counts as %d", i+1, n)
		}
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{
		{limitWindow / 2, 11},                // the same window
		{limitWindow, 12},                    // all of the last window still counts
		{limitWindow + limitWindow/2, 2 + 5}, // half of it
		{2*limitWindow - time.Second, 3 + 0}, // nearly nothing of it
		{5 * limitWindow, 1},                 // long after
		{5*limitWindow + 1, 2},
	} {
		if n := l.count("a", start.Add(c.after)); n != c.want {
			t.Errorf("after %s: %d, want %d", c.after, n, c.want)
		}
	}
	if n := l.count("b", start.Add(5*limitWindow)); n != 1 {
		t.Errorf("another key counts as %d", n)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"5": 5 * time.Second, "0.5m": 30 * time.Second, "1h": time.Hour, "2d": 48 * time.Hour, "1w": 7 * 24 * time.Hour} {
		if got, ok := parseDuration(text); !ok || got != want {
			t.Errorf("%q is %s, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "h", "-1s", "NaN", "1e300w", "5x", "inf"} {
		if got, ok := parseDuration(text); ok {
			t.Errorf("%q is %s", text, got)
		}
	}
}
