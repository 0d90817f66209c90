package backendai

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The resource slots that every engine knows.
const (
	SlotCPU = "cpu"
	SlotMem = "mem"
)

// Slots are amounts of resources by slot name: bytes for a slot whose name
// contains "mem", thousandths of one for any other (so cpu 1500 is one and a
// half cores). API section 10.
type Slots map[string]int64

// IsBytes tells whether the amounts of a slot are bytes.
func IsBytes(slot string) bool { return strings.Contains(slot, SlotMem) }

// ParseAmount reads the amount of one slot as users and the wire write it.
func ParseAmount(slot, text string) (int64, error) {
	if IsBytes(slot) {
		return ParseSize(text)
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || f < 0 || f > 1e12 {
		return 0, fmt.Errorf("%s=%s is not an amount of zero or more", slot, text)
	}
	return int64(math.Round(f * 1000)), nil
}

// FormatAmount is the inverse of ParseAmount: decimal text, bytes for memory.
func FormatAmount(slot string, amount int64) string {
	if IsBytes(slot) {
		return strconv.FormatInt(amount, 10)
	}
	return strconv.FormatFloat(float64(amount)/1000, 'f', -1, 64)
}

var sizeRE = regexp.MustCompile(`(?i)^(\d[\d_]*(?:\.\d*)?)\s*(?:([kmgtpe])(?:b|ib|bytes?|ibytes?)?|b|bytes?)?$`)

// ParseSize reads a binary size: an integer, or a decimal number with a suffix
// k, m, g, t, p or e in powers of 1024. A bare number is bytes (API section 10).
func ParseSize(text string) (int64, error) {
	m := sizeRE.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size such as 512m or 4g", text)
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(m[1], "_", ""), 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size such as 512m or 4g", text)
	}
	if m[2] != "" {
		f *= math.Pow(1024, float64(1+strings.Index("kmgtpe", strings.ToLower(m[2]))))
	}
	if f >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return int64(f), nil
}

// FormatSize writes bytes for people: 1536 is "1.5KiB".
func FormatSize(bytes int64) string {
	if bytes < 1024 {
		return strconv.FormatInt(bytes, 10) + "B"
	}
	f, unit := float64(bytes), -1
	for f >= 1024 && unit < 5 {
		f, unit = f/1024, unit+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + "KMGTPE"[unit:unit+1] + "iB"
}

// Clone returns a copy that shares nothing.
func (s Slots) Clone() Slots { return maps.Clone(s) }

// Add returns s + t.
func (s Slots) Add(t Slots) Slots { return s.plus(t, 1) }

// Sub returns s - t.
func (s Slots) Sub(t Slots) Slots { return s.plus(t, -1) }

func (s Slots) plus(t Slots, sign int64) Slots {
	sum := Slots{}
	maps.Copy(sum, s)
	for k, v := range t {
		sum[k] += sign * v
	}
	return sum
}

// Exceeds names the first slot (in order of name) of which s asks more than
// limit has, or "".
func (s Slots) Exceeds(limit Slots) string {
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if s[k] > limit[k] {
			return k
		}
	}
	return ""
}

// Wire is the protocol's form: slot name to decimal text.
func (s Slots) Wire() map[string]string {
	m := make(map[string]string, len(s))
	for k, v := range s {
		m[k] = FormatAmount(k, v)
	}
	return m
}
