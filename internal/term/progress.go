package term

import (
	"sync"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"backendai"
)

// Progress shows how far one piece of work has come: a bar on a terminal, a
// line per stage and quarter elsewhere. While it is open nothing else is printed.
type Progress struct {
	printer *Printer
	pool    *mpb.Progress // nil where lines are printed
	rate    bool

	// shown is read while the bar draws itself, when mu may be held by a Set
	// that waits for the bar.
	shown atomic.Pointer[string]

	mu      sync.Mutex
	bar     *mpb.Bar
	label   string // of the last line
	total   int64
	quarter int64 // of the last line
	closed  bool
}

// Progress begins to show progress. The caller closes it.
func (p *Printer) Progress() *Progress {
	g := &Progress{printer: p}
	if p.tty && !p.quiet {
		p.settle()
		g.pool = mpb.New(mpb.WithOutput(p.err), mpb.WithWidth(40))
	}
	return g
}

// Transfer is Progress with the rate and the remaining time.
func (p *Printer) Transfer() *Progress {
	g := p.Progress()
	g.rate = true
	return g
}

// Set tells what is going on and how much of it is done, in bytes; a total of
// zero is not known.
func (g *Progress) Set(label string, done, total int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	if g.pool == nil {
		g.line(Clean(label), done, total)
		return
	}
	text := oneLine(label) + " "
	g.shown.Store(&text)
	if g.bar == nil {
		after := []decor.Decorator{decor.Percentage(decor.WCSyncSpace), decor.CountersKibiByte(" % .1f / % .1f")}
		if g.rate {
			after = append(after, decor.AverageSpeed(decor.SizeB1024(0), " % .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO))
		}
		g.bar = g.pool.AddBar(0,
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return *g.shown.Load() })),
			mpb.AppendDecorators(after...), mpb.BarRemoveOnComplete())
	}
	if total > 0 && total != g.total {
		g.bar.SetTotal(total, false)
		g.total = total
	}
	g.bar.SetCurrent(done)
}

func (g *Progress) line(label string, done, total int64) {
	quarter := int64(0)
	if total > 0 {
		quarter = min(4, done*4/total)
	}
	if label == g.label && quarter <= g.quarter {
		return
	}
	g.label, g.quarter = label, quarter
	if total > 0 {
		g.printer.Wait("%s: %s of %s", label, backendai.FormatSize(done), backendai.FormatSize(total))
	} else {
		g.printer.Wait("%s", label)
	}
}

// Close takes the bar away. A second Close does nothing.
func (g *Progress) Close() {
	g.mu.Lock()
	again := g.closed
	g.closed = true
	bar := g.bar
	g.mu.Unlock()
	if again {
		return
	}
	if bar != nil {
		bar.Abort(true)
	}
	if g.pool != nil {
		g.pool.Wait()
	}
}
