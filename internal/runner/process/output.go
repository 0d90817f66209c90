package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// tailSize is how much of the end of an Output is remembered, in bytes.
const tailSize = 4 << 10

// drainTime is how long Drain waits.
const drainTime = 200 * time.Millisecond

// Output carries what a process prints, standard output and error as they come,
// to a writer, and remembers the end of it.
type Output struct {
	reader *os.File
	done   chan struct{}

	mu   sync.Mutex
	tail []byte
}

// NewOutput makes an Output whose writing end is given to processes as one of
// their standard streams and then closed by the caller. The Output ends when
// every process that has the writing end has ended; Close ends it before.
func NewOutput(w io.Writer) (*Output, *os.File, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	o := &Output{reader: reader, done: make(chan struct{})}
	go o.copy(w)
	return o, writer, nil
}

// StartPiped starts cmd with its standard output and error both going to w.
func (t *Table) StartPiped(cmd *exec.Cmd, w io.Writer) (*Child, *Output, error) {
	o, writer, err := NewOutput(w)
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	child, err := t.Start(cmd)
	writer.Close()
	if err != nil {
		o.Close()
		return nil, nil, err
	}
	return child, o, nil
}

func (o *Output) copy(w io.Writer) {
	defer close(o.done)
	defer o.reader.Close()
	buf := make([]byte, 8<<10)
	for {
		n, err := o.reader.Read(buf)
		if n > 0 {
			o.remember(buf[:n])
			// A full disk must not stop a process from printing.
			_, _ = w.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (o *Output) remember(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, p...)
	if drop := len(o.tail) - tailSize; drop > 0 {
		o.tail = o.tail[:copy(o.tail, o.tail[drop:])]
	}
}

// Done is closed when nothing more will come.
func (o *Output) Done() <-chan struct{} { return o.done }

// Tail is the end of what was printed so far, valid UTF-8.
func (o *Output) Tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.ToValidUTF8(string(o.tail), "")
}

// Drain waits for the rest of what a dead process printed, but not long: what
// it left running may hold the pipe for ever.
func (o *Output) Drain() {
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
}

// Close stops carrying and waits for the last write. The processes that still
// print get a broken pipe.
func (o *Output) Close() {
	o.reader.Close()
	<-o.done
}
