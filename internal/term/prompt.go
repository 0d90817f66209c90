package term

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	xterm "golang.org/x/term"
)

// Secret asks for a secret: on a terminal without showing what is typed, else
// it is the first line of in.
func (p *Printer) Secret(in io.Reader, question string) (string, error) {
	if f, ok := in.(*os.File); ok && xterm.IsTerminal(int(f.Fd())) {
		p.settle()
		_, _ = fmt.Fprintf(p.err, "%s: ", question)
		secret, err := xterm.ReadPassword(int(f.Fd()))
		_, _ = fmt.Fprintln(p.err)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", strings.ToLower(question), err)
		}
		return string(secret), nil
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read %s: %w", strings.ToLower(question), err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// Ask asks a question and gives the line that is answered, without spaces at its
// ends. No answer at all is an empty one.
func (p *Printer) Ask(in io.Reader, question string) (string, error) {
	p.settle()
	_, _ = fmt.Fprintf(p.err, "%s ", question)
	// One byte at a time: what comes after the line is for the next question.
	var line []byte
	b := make([]byte, 1)
	for {
		n, err := in.Read(b)
		if n > 0 && b[0] != '\n' {
			line = append(line, b[0])
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read answer: %w", err)
		}
		if n > 0 || err != nil {
			return strings.TrimSpace(string(line)), nil
		}
	}
}
