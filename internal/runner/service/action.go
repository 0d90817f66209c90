package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"backendai/internal/image/service"
	"backendai/internal/runner/process"
)

// maxResult bounds the output of a prestart command, in bytes.
const maxResult = 64 << 10

// act carries out one prestart action with the session's own rights, and keeps
// its result among the variables. The paths are those of the image's author,
// who may mean any place in the session.
func (s *Services) act(ctx context.Context, template service.Action, vars service.Variables) error {
	a, err := template.Expand(vars)
	if err != nil {
		return err
	}
	var result service.Value
	switch a.Kind {
	case service.ActionWriteFile:
		err = writeFile(s.path(a.Filename), strings.Join(a.Body, ""), a)
		result = service.Text(a.Filename)
	case service.ActionWriteTempfile:
		var path string
		path, err = s.writeTempfile(strings.Join(a.Body, ""), a.Mode)
		result = service.Text(path)
	case service.ActionMkdir:
		err = os.MkdirAll(s.path(a.Path), 0o755)
		result = service.Text(a.Path)
	case service.ActionRunCommand:
		result, err = s.runCommand(ctx, a)
	case service.ActionLog:
		s.note("%s", a.Message)
	default:
		err = fmt.Errorf("there is no action %q", a.Kind)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", a.Kind, err)
	}
	if a.Ref != "" {
		vars[a.Ref] = result
	}
	return nil
}

func (s *Services) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(s.Config.Home, p)
}

func writeFile(path, body string, a service.Action) error {
	// Not blocking, should a FIFO stand there.
	flags := os.O_WRONLY | os.O_CREATE | syscall.O_NONBLOCK
	if a.Append {
		flags |= os.O_APPEND
	} else {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, a.Mode)
	if err != nil {
		return err
	}
	return fill(f, body, a.Mode)
}

func (s *Services) writeTempfile(body string, mode os.FileMode) (string, error) {
	f, err := os.CreateTemp(process.TempDir(s.Config.Env), "backendai-*"+service.TempfileSuffix)
	if err != nil {
		return "", err
	}
	return f.Name(), fill(f, body, mode)
}

// fill writes and closes a file; its mode is not cut by the umask.
func fill(f *os.File, body string, mode os.FileMode) error {
	_, err := io.WriteString(f, body)
	if err == nil {
		err = f.Chmod(mode)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// runCommand runs a program to its end. Its exit code does not matter: the
// definition sees what it printed (API section 12).
func (s *Services) runCommand(ctx context.Context, a service.Action) (service.Value, error) {
	cmd, err := s.cmd(a.Command, nil)
	if err != nil {
		return service.Value{}, err
	}
	var stdout, stderr collector
	out, outEnd, err := process.NewOutput(&stdout)
	if err != nil {
		return service.Value{}, err
	}
	errs, errEnd, err := process.NewOutput(&stderr)
	if err != nil {
		outEnd.Close()
		out.Close()
		return service.Value{}, err
	}
	cmd.Stdout, cmd.Stderr = outEnd, errEnd
	child, err := s.Table.Start(cmd)
	outEnd.Close()
	errEnd.Close()
	if err == nil {
		select {
		case <-child.Done():
		case <-ctx.Done():
			child.SweepGroup()
			err = child.SignalGroup(syscall.SIGKILL)
			child.Wait()
			err = errors.Join(fmt.Errorf("%s took too long", a.Command[0]), err)
		}
	}
	for _, o := range []*process.Output{out, errs} {
		o.Drain()
		o.Close()
	}
	if err != nil {
		return service.Value{}, err
	}
	if a.Echo {
		_, _ = s.Log.Write(append(stdout.Bytes(), stderr.Bytes()...)) // as with services, a full disk does not matter
	}
	return service.Fields(map[string]string{"out": stdout.String(), "err": stderr.String()}), nil
}

// collector keeps the first maxResult bytes of what is written to it.
type collector struct{ bytes.Buffer }

func (c *collector) Write(p []byte) (int, error) {
	if room := maxResult - c.Len(); room > 0 {
		c.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
