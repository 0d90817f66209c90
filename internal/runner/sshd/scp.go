//go:build linux

package sshd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// copier is the remote end of the old scp protocol, for images that have no
// scp of their own: newer clients use SFTP, older ones and "scp -O" run
// "scp -t" or "scp -f" here.
type copier struct {
	home      string
	paths     []word
	sink      bool // -t: files come; else -f: files go
	recursive bool
	times     bool
	folder    bool // -d: the target has to be a folder

	in     *bufio.Reader
	out    *bufio.Writer
	failed bool
}

// maxLine bounds a control line of the protocol: a name and two numbers.
const maxLine = 8 << 10

// errScp is one that the other side has been told of, or has told us of.
var errScp = errors.New("scp failed")

// copier reads command as a call of scp's remote end and says whether it is
// one that has to be served here.
func (s *session) copier(command string, noShell bool) (*copier, bool) {
	words, ok := splitWords(command)
	if !ok || len(words) < 3 || words[0].text != "scp" {
		return nil, false
	}
	if !noShell && inPath("scp", searchPath(s.conn.server.opts.Env)) {
		return nil, false
	}
	c := &copier{home: s.conn.server.opts.Home}
	ends := 0
	for i := 1; i < len(words); i++ {
		flags, isFlags := strings.CutPrefix(words[i].text, "-")
		if !isFlags || flags == "" || flags == "-" {
			if flags == "-" {
				i++
			}
			c.paths = words[i:]
			break
		}
		for _, flag := range flags {
			switch flag {
			case 't', 'f':
				c.sink = flag == 't'
				ends++
			case 'r':
				c.recursive = true
			case 'p':
				c.times = true
			case 'd':
				c.folder = true
			case 'v', 'q': // how much it says of itself
			default:
				return nil, false
			}
		}
	}
	return c, ends == 1 && len(c.paths) > 0
}

// inPath tells whether name can be run from one of path's folders.
func inPath(name, path string) bool {
	for _, dir := range filepath.SplitList(path) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// run serves the protocol over ch and returns the exit code.
func (c *copier) run(ch io.ReadWriter) int {
	c.in, c.out = bufio.NewReaderSize(ch, 64<<10), bufio.NewWriterSize(ch, 64<<10)
	var err error
	if c.sink {
		err = c.receive()
	} else {
		err = c.send()
	}
	if flushErr := c.out.Flush(); err != nil || flushErr != nil || c.failed {
		return 1
	}
	return 0
}

// complain tells the other side of an error and goes on.
func (c *copier) complain(err error) error {
	c.failed = true
	_, err = fmt.Fprintf(c.out, "\x01scp: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
	return err
}

// ok tells the other side to go on.
func (c *copier) ok() error {
	return errors.Join(c.out.WriteByte(0), c.out.Flush())
}

// wait reads the other side's word on what was sent. A warning is no end, but
// what it is about is passed over: errScp.
func (c *copier) wait() error {
	if err := c.out.Flush(); err != nil {
		return err
	}
	code, err := c.in.ReadByte()
	if err != nil || code == 0 {
		return err
	}
	if _, err := c.line(); err != nil {
		return err
	}
	c.failed = true
	if code == 1 {
		return errScp
	}
	return io.ErrUnexpectedEOF
}

func (c *copier) line() (string, error) {
	var text []byte
	for len(text) < maxLine {
		b, err := c.in.ReadByte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			return string(text), nil
		}
		text = append(text, b)
	}
	return "", errors.New("control line is too long")
}

func (c *copier) resolve(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		path = "." + path[1:]
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.home, path)
	}
	return path
}

// times is a T line: what -p keeps.
type times struct{ modified, accessed time.Time }

// receive is "scp -t target".
func (c *copier) receive() error {
	target := c.resolve(c.paths[0].text)
	info, err := os.Stat(target)
	isFolder := err == nil && info.IsDir()
	if c.folder && !isFolder {
		return errors.Join(c.complain(fmt.Errorf("%s: not a directory", c.paths[0].text)), errScp)
	}
	if err := c.ok(); err != nil {
		return err
	}
	return c.receiveInto(target, isFolder)
}

// receiveInto takes entries until the end of the folder or of the stream. A
// target that is no folder yet is the name for the one entry.
func (c *copier) receiveInto(target string, isFolder bool) error {
	var kept *times
	for {
		line, err := c.line()
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case line == "":
			return errors.New("empty control line")
		case line == "E":
			return c.ok()
		case line[0] == 1 || line[0] == 2:
			c.failed = true
			if line[0] == 2 {
				return errScp
			}
			continue
		case line[0] == 'T':
			if kept, err = parseTimes(line[1:]); err == nil {
				err = c.ok()
			}
		default:
			err = c.receiveEntry(line, target, isFolder, kept)
			kept = nil
		}
		if err != nil {
			return err
		}
	}
}

// receiveEntry takes one file or folder.
func (c *copier) receiveEntry(line, target string, isFolder bool, kept *times) error {
	kind, mode, size, name, err := parseEntry(line)
	if err != nil {
		return errors.Join(c.complain(err), err)
	}
	path := target
	if isFolder {
		path = filepath.Join(target, name)
	}
	if kind == 'D' {
		return c.receiveFolder(path, mode, kept)
	}
	if err := c.ok(); err != nil {
		return err
	}
	failed := c.receiveFile(path, mode, size, kept)
	if err := c.wait(); err != nil && !errors.Is(err, errScp) {
		return err
	}
	if failed != nil {
		return errors.Join(c.complain(failed), c.out.Flush())
	}
	return c.ok()
}

func (c *copier) receiveFolder(path string, mode fs.FileMode, kept *times) error {
	if !c.recursive {
		return errors.Join(c.complain(errors.New("received a directory without -r")), errScp)
	}
	if err := os.Mkdir(path, mode|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return errors.Join(c.complain(err), errScp)
	}
	if err := c.ok(); err != nil {
		return err
	}
	if err := c.receiveInto(path, true); err != nil {
		return err
	}
	var err error
	if c.times {
		err = os.Chmod(path, mode)
	}
	if kept != nil {
		err = errors.Join(err, os.Chtimes(path, kept.accessed, kept.modified))
	}
	if err != nil {
		return c.complain(err)
	}
	return nil
}

// receiveFile takes the content, also when it cannot be kept: the stream goes on.
func (c *copier) receiveFile(path string, mode fs.FileMode, size int64, kept *times) error {
	f, failed := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if failed != nil {
		_, err := io.CopyN(io.Discard, c.in, size)
		return errors.Join(failed, err)
	}
	n, failed := io.CopyN(f, c.in, size)
	if failed != nil && n < size {
		_, _ = io.CopyN(io.Discard, c.in, size-n) // a broken stream shows itself at the next read
	}
	if c.times && failed == nil {
		failed = f.Chmod(mode)
	}
	failed = errors.Join(failed, f.Close())
	if kept != nil && failed == nil {
		failed = os.Chtimes(path, kept.accessed, kept.modified)
	}
	return failed
}

func parseTimes(text string) (*times, error) {
	var m, mu, a, au int64
	if _, err := fmt.Sscanf(text, "%d %d %d %d", &m, &mu, &a, &au); err != nil {
		return nil, fmt.Errorf("times %q are malformed", clip(text))
	}
	return &times{time.Unix(m, mu*1000), time.Unix(a, au*1000)}, nil
}

// parseEntry reads "Cmmmm size name" and "Dmmmm 0 name".
func parseEntry(line string) (kind byte, mode fs.FileMode, size int64, name string, err error) {
	fields := strings.SplitN(line[1:], " ", 3)
	if kind = line[0]; kind != 'C' && kind != 'D' || len(fields) != 3 {
		return 0, 0, 0, "", fmt.Errorf("control line %q is malformed", clip(line))
	}
	bits, err1 := strconv.ParseUint(fields[0], 8, 12)
	size, err2 := strconv.ParseInt(fields[1], 10, 64)
	if name = fields[2]; err1 != nil || err2 != nil || size < 0 {
		return 0, 0, 0, "", fmt.Errorf("control line %q is malformed", clip(line))
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return 0, 0, 0, "", fmt.Errorf("%q is not a file name", clip(name))
	}
	return kind, fs.FileMode(bits & 0o777), size, name, nil
}

// send is "scp -f path…".
func (c *copier) send() error {
	if err := c.wait(); err != nil {
		return err
	}
	for _, w := range c.paths {
		names := []string{c.resolve(w.text)}
		if w.pattern != "" {
			if found, err := filepath.Glob(c.resolve(w.pattern)); err == nil && len(found) > 0 {
				names = found
			}
		}
		for _, name := range names {
			if err := c.sendPath(name); err != nil && !errors.Is(err, errScp) {
				return err
			}
		}
	}
	return nil
}

func (c *copier) sendPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not block
	if err != nil {
		return c.complain(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return c.complain(err)
	}
	switch {
	case info.IsDir() && c.recursive:
		return c.sendFolder(f, info)
	case !info.Mode().IsRegular():
		return c.complain(fmt.Errorf("%s: not a regular file", path))
	}
	if err := c.announce('C', info, info.Size()); err != nil {
		return err
	}
	n, err := io.CopyN(c.out, f, info.Size())
	if err == nil {
		return errors.Join(c.out.WriteByte(0), c.wait())
	}
	// It has shrunk or cannot be read: the promised length goes out all the same.
	if _, err := io.CopyN(c.out, zeros{}, info.Size()-n); err != nil {
		return err
	}
	return errors.Join(c.complain(fmt.Errorf("read %s: %w", path, err)), c.wait())
}

// zeros reads as zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (c *copier) sendFolder(f *os.File, info fs.FileInfo) error {
	if err := c.announce('D', info, 0); err != nil {
		return err
	}
	for {
		entries, err := f.ReadDir(256)
		for _, entry := range entries {
			if err := c.sendPath(filepath.Join(f.Name(), entry.Name())); err != nil && !errors.Is(err, errScp) {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if err := c.complain(err); err != nil {
				return err
			}
			break
		}
	}
	if _, err := io.WriteString(c.out, "E\n"); err != nil {
		return err
	}
	return c.wait()
}

// announce sends the lines in front of an entry and waits for the answers.
func (c *copier) announce(kind byte, info fs.FileInfo, size int64) error {
	if c.times {
		at := info.ModTime().Unix()
		if _, err := fmt.Fprintf(c.out, "T%d 0 %d 0\n", at, at); err != nil {
			return err
		}
		if err := c.wait(); err != nil {
			return err
		}
	}
	name := strings.ReplaceAll(info.Name(), "\n", "?")
	if _, err := fmt.Fprintf(c.out, "%c%04o %d %s\n", kind, info.Mode().Perm(), size, name); err != nil {
		return err
	}
	return c.wait()
}

// word is one of a command line, as a shell would read it.
type word struct {
	text    string
	pattern string // for filepath.Glob; empty when nothing is to be expanded
}

// splitWords reads a command line with quotes and backslashes (XCU 2.2). It
// gives up on anything that only a shell can do.
func splitWords(command string) (words []word, ok bool) {
	var text, pattern strings.Builder
	var quote rune
	inWord, escaped, glob := false, false, false
	literal := func(r rune) {
		text.WriteRune(r)
		if strings.ContainsRune(`*?[]\`, r) {
			pattern.WriteByte('\\')
		}
		pattern.WriteRune(r)
	}
	flush := func() {
		if inWord {
			w := word{text: text.String()}
			if glob {
				w.pattern = pattern.String()
			}
			words = append(words, w)
		}
		text.Reset()
		pattern.Reset()
		inWord, glob = false, false
	}
	for _, r := range command {
		switch {
		case escaped:
			escaped = false
			literal(r)
		case quote == '\'' && r != quote:
			literal(r)
		case r == '\\':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == '"' && !strings.ContainsRune("$`", r):
			literal(r)
		case strings.ContainsRune("$`;|&<>()\n", r):
			return nil, false
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			flush()
		default:
			inWord = true
			glob = glob || strings.ContainsRune("*?[", r)
			text.WriteRune(r)
			pattern.WriteRune(r)
		}
	}
	flush()
	return words, quote == 0 && !escaped
}
