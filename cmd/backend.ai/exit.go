package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"backendai"
)

// The exit codes. A command that a signal ended has 128 plus the signal's number.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitTimeout = 3 // the operation goes on, the waiting is over
	exitInvalid = 4 // what was named is not there to be named
)

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// shapeError is a command line of which not a value is wrong, but the whole:
// how the command is called is told with it.
type shapeError struct{ usageError }

func (e shapeError) Unwrap() error { return e.usageError }

func shape(err error) error { return shapeError{usageError{err}} }

// exitError ends the program with a code. What there is to say has been said
// already when err is nil.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}
func (e exitError) Unwrap() error { return e.err }

// signalled is the cause of a context that a signal has ended.
type signalled struct{ sig syscall.Signal }

func (s signalled) Error() string { return "ended by signal: " + s.sig.String() }

// untilSignal gives a context that the first SIGINT or SIGTERM ends; the second
// one ends the process as it always would.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-signals:
			signal.Stop(signals)
			if sig, ok := s.(syscall.Signal); ok {
				cancel(signalled{sig})
			}
			cancel(errors.New("interrupted"))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
		<-ended
	}
}

// exitCode is the one place that turns errors into codes.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if s, ok := errors.AsType[signalled](err); ok {
		return 128 + int(s.sig)
	}
	if e, ok := errors.AsType[exitError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}

// report is the one place that prints errors. It returns the exit code.
func (e *env) report(ctx context.Context, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	if s, ok := errors.AsType[signalled](context.Cause(ctx)); ok && errors.Is(err, context.Canceled) {
		err = s // what failed, failed because of the signal
	}
	code := exitCode(err)
	silent, _ := errors.AsType[exitError](err)
	_, interrupted := errors.AsType[signalled](err)
	_, usage := errors.AsType[usageError](err)
	_, whole := errors.AsType[shapeError](err)
	switch {
	case interrupted:
		e.term.Info("Interrupted!")
	case silent.code != 0 && silent.err == nil:
	case e.output == outputJSON:
		if jsonErr := e.term.JSON(errorJSON(err)); jsonErr != nil {
			e.term.Fail("%v", jsonErr)
		}
	default:
		lines := errorLines(err)
		if whole {
			lines = append(lines, "usage: "+usageLine(cmd))
		}
		if usage && !strings.HasPrefix(lines[len(lines)-1], hintMark) {
			lines = append(lines, fmt.Sprintf("%ssee '%s -h'", hintMark, cmd.CommandPath()))
		}
		e.term.Fail("%s", strings.Join(lines, "\n"))
	}
	return code
}

const hintMark = "hint: "

// errorLines are the title, what the protocol's details add, and the hint.
func errorLines(err error) []string {
	lines := []string{err.Error()}
	problem, ok := errors.AsType[*backendai.Error](err)
	if !ok {
		return lines
	}
	lines = append(lines, detailLines(problem)...)
	if hint := hintOf(problem); hint != "" {
		lines = append(lines, hintMark+hint)
	}
	return lines
}

// hintOf is the hint of a problem, or what helps with the commonest ones.
func hintOf(problem *backendai.Error) string {
	if problem.Hint == "" && problem.Code == backendai.CodeNotFound && strings.HasPrefix(problem.Title, "no such session") {
		return "'backend.ai ps' lists yours"
	}
	return problem.Hint
}

func detailLines(problem *backendai.Error) (lines []string) {
	data, _ := problem.Data.(map[string]any)
	switch problem.Code {
	case backendai.CodeTooManySessions:
		matches, _ := data["matches"].([]any)
		lines = append(lines, "Candidates:")
		for _, m := range matches {
			s, _ := m.(map[string]any)
			lines = append(lines, fmt.Sprintf("- %v (%v, %v)", s["id"], s["name"], s["status"]))
		}
	case backendai.CodeSessionExists:
		if id, ok := data["existingSessionId"]; ok {
			lines = append(lines, fmt.Sprintf("It has the ID %v.", id))
		}
	case backendai.CodeInvalidParams:
		for _, field := range slices.Sorted(maps.Keys(data)) {
			// A field whose fault is the title itself needs no second mention.
			if line := fmt.Sprintf("- %q: %v", field, data[field]); !strings.Contains(problem.Title, fmt.Sprint(data[field])) {
				lines = append(lines, line)
			}
		}
		if text, ok := problem.Data.(string); ok && text != "" {
			lines = append(lines, "- "+text)
		}
	}
	return lines
}

// errorJSON is an error for programs.
func errorJSON(err error) map[string]any {
	answer := map[string]any{"ok": false, "msg": err.Error(), "error": err.Error()}
	if problem, ok := errors.AsType[*backendai.Error](err); ok {
		api := map[string]any{"type": "https://api.backend.ai/probs/" + string(problem.Code), "title": problem.Title}
		if hint := hintOf(problem); hint != "" {
			answer["hint"], api["hint"] = hint, hint
		}
		if problem.Data != nil {
			api["data"] = problem.Data
		}
		answer["api"] = api
	}
	return answer
}
