package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Retention is the log-retention.
func (c *Config) Retention() time.Duration {
	d, err := parseDays(c.LogRetention)
	if err != nil {
		return 0
	}
	return d
}

// parseDays reads a duration of Go, or a whole number of days such as 30d.
func parseDays(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 12h or 30d", text)
	}
	return d, nil
}
