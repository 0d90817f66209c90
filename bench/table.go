//go:build linux

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// unit writes a value for people.
type unit func(float64) string

func milliseconds(v float64) string {
	switch ms := v * 1e3; {
	case ms < 1:
		return fmt.Sprintf("%.0f µs", ms*1e3)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}

func megabytes(v float64) string { return fmt.Sprintf("%.0f MB/s", v/1e6) }

func mebibytes(v float64) string {
	if v < 1<<20 {
		return fmt.Sprintf("%.1f KiB", v/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", v/(1<<20))
}

func number(v float64) string { return fmt.Sprintf("%.0f", v) }

// series is what was measured of one thing: seconds, bytes a second, bytes or
// a number.
type series []float64

// add takes one more time.
func (s *series) add(d time.Duration) { *s = append(*s, d.Seconds()) }

// rate takes one more transfer.
func (s *series) rate(bytes int64, d time.Duration) { *s = append(*s, float64(bytes)/d.Seconds()) }

// quantile is the value below which a share of the series is; that of a half is
// the median.
func (s series) quantile(q float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

func (s series) median() float64 { return s.quantile(0.5) }

func (s series) text(u unit) string {
	switch {
	case len(s) == 0:
		return ""
	case len(s) < 3:
		return u(s.median())
	}
	low, high := u(s.quantile(0.1)), u(s.quantile(0.9))
	if value, name, _ := strings.Cut(low, " "); strings.HasSuffix(high, " "+name) {
		low = value // the unit is said once
	}
	return fmt.Sprintf("%s (%s–%s)", u(s.median()), low, high)
}

// budget is what a value must not be beyond.
type budget struct {
	kind  kind
	limit float64
}

type kind int

const (
	none         kind = iota
	ratioAtMost       // of the baseline
	ratioAtLeast      // of the baseline
	addsAtMost        // to the baseline
	atMost
)

func (b budget) text(u unit) string {
	switch b.kind {
	case ratioAtMost:
		return fmt.Sprintf("≤ %g ×", b.limit)
	case ratioAtLeast:
		return fmt.Sprintf("≥ %g ×", b.limit)
	case addsAtMost:
		return "≤ +" + u(b.limit)
	case atMost:
		return "≤ " + u(b.limit)
	default:
		return ""
	}
}

func (b budget) met(measured, baseline float64) bool {
	switch b.kind {
	case ratioAtMost:
		return measured <= b.limit*baseline
	case ratioAtLeast:
		return measured >= b.limit*baseline
	case addsAtMost:
		return measured-baseline <= b.limit
	default:
		return measured <= b.limit
	}
}

// row is one line of the table.
type row struct {
	what     string
	measured series
	unit     unit
	against  string // what the baseline is
	baseline series
	budget   budget
}

// table collects rows and notes.
type table struct {
	rows  []row
	notes []string
}

func (t *table) add(r row) { t.rows = append(t.rows, r) }

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "))
}

// write prints the table.
func (t *table) write(out io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %d processors; medians, in brackets from the 10th to the 90th percentile\n\n", kernel(), runtime.NumCPU())
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	header := []string{"what", "runs", "measured", "baseline", "ratio", "budget", ""}
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for i, title := range header {
		header[i] = strings.Repeat("-", utf8.RuneCountInString(title))
	}
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range t.rows {
		fmt.Fprintln(w, strings.Join(r.cells(), "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	if len(t.notes) > 0 {
		fmt.Fprintln(&text)
	}
	for _, note := range t.notes {
		fmt.Fprintln(&text, note)
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func (r row) cells() []string {
	cells := []string{r.what, fmt.Sprint(len(r.measured)), r.measured.text(r.unit), "", "", r.budget.text(r.unit), ""}
	measured, baseline := r.measured.median(), 0.0
	if len(r.baseline) > 0 {
		baseline = r.baseline.median()
		cells[3] = r.against + ": " + r.baseline.text(r.unit)
		if baseline != 0 {
			cells[4] = fmt.Sprintf("%.2f ×", measured/baseline)
		}
	}
	if r.budget.kind == addsAtMost {
		cells[4] = "+" + r.unit(max(0, measured-baseline))
	}
	switch {
	case r.budget.kind == none:
	case r.budget.met(measured, baseline):
		cells[6] = "ok"
	default:
		cells[6] = "over"
	}
	return cells
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}
