package term

import (
	"strings"

	"github.com/mattn/go-runewidth"
)

// gap stands between columns.
const gap = "  "

// Table writes rows below a header and a line of dashes, in columns as wide as
// their widest cell. Cells may have several lines.
func (p *Printer) Table(header []string, rows [][]string) error {
	widths := make([]int, len(header))
	dashes := make([]string, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			for line := range strings.SplitSeq(Clean(cell), "\n") {
				widths[i] = max(widths[i], runewidth.StringWidth(line))
			}
		}
	}
	for i, w := range widths {
		dashes[i] = strings.Repeat("-", w)
	}
	var b strings.Builder
	for _, row := range append([][]string{header, dashes}, rows...) {
		writeRow(&b, row, widths)
	}
	return p.Text(b.String())
}

// Plain writes rows in columns without header and lines, for scripts.
func (p *Printer) Plain(rows [][]string) error {
	var widths []int
	for _, row := range rows {
		widths = append(widths, make([]int, max(0, len(row)-len(widths)))...)
		for i, cell := range row {
			widths[i] = max(widths[i], runewidth.StringWidth(oneLine(cell)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		flat := make([]string, len(row))
		for i, cell := range row {
			flat[i] = oneLine(cell)
		}
		writeRow(&b, flat, widths)
	}
	return p.Text(b.String())
}

// Fields writes the two columns Field and Value of one thing.
func (p *Printer) Fields(pairs [][2]string) error {
	rows := make([][]string, len(pairs))
	for i, pair := range pairs {
		rows[i] = pair[:]
	}
	return p.Table([]string{"Field", "Value"}, rows)
}

func oneLine(cell string) string { return strings.ReplaceAll(Clean(cell), "\n", " ") }

func writeRow(b *strings.Builder, row []string, widths []int) {
	cells := make([][]string, len(row))
	height := 1
	for i, cell := range row {
		cells[i] = strings.Split(Clean(cell), "\n")
		height = max(height, len(cells[i]))
	}
	for y := range height {
		var line strings.Builder
		for i := range row {
			text := ""
			if y < len(cells[i]) {
				text = cells[i][y]
			}
			line.WriteString(text + strings.Repeat(" ", widths[i]-runewidth.StringWidth(text)) + gap)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
