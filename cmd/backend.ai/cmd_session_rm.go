package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"backendai"
	"backendai/internal/client"
)

// newSessionRemoveCommand is "rm", "kill", "destroy" and "terminate".
func newSessionRemoveCommand(e *env, name string, aliases ...string) *cobra.Command {
	var o client.DestroyOptions
	var stats bool
	cmd := &cobra.Command{
		Use: name + " SESSION…", Aliases: aliases, Short: "Remove sessions",
		Long: "Removes sessions: ends all that runs in them and deletes what is not in a mounted folder. It returns when they are gone. One that cannot be removed does not keep the others.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.each(cmd.Context(), args, "Removing session %s…", "Session %s is removed.", func(ctx context.Context, c *client.Client, ref string) (any, error) {
				last, err := c.DestroySession(ctx, ref, o)
				if err == nil {
					err = e.forgetSSH(ref)
				}
				if err == nil && stats {
					err = e.showStats(last)
				}
				if problem, ok := errors.AsType[*backendai.Error](err); ok && problem.Code == backendai.CodeNotFound && o.Owner == "" {
					err = problem.WithHint("'backend.ai ps' lists yours; for the session of another user give the owner's access key with -o")
				}
				return map[string]any{"session": ref, "stats": last}, err
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Forced, "forced", "f", false, "remove it in whatever status it is, without waiting for what runs in it")
	f.StringVarP(&o.Owner, "owner", "o", "", "access `KEY` of the user whose sessions they are; for administrators; without it your own")
	f.BoolVarP(&o.Recursive, "recursive", "r", false, "remove the sessions that depend on it too")
	f.BoolVarP(&stats, "stats", "s", false, "show what the session has used")
	return document(cmd, manual{
		arguments: [][2]string{{"SESSION", "name or id of a session, or how one of them begins"}},
		examples:  [][2]string{{"Remove one", "backend.ai rm mysession"}, {"Remove two at once, whatever they do", "backend.ai rm -f one1 two2"}},
		exits:     [][2]string{{"4", "no session was named"}},
	})
}

// each does the same to every session that is named. All are tried; failures
// are told one by one.
func (e *env) each(ctx context.Context, refs []string, waiting, done string, do func(context.Context, *client.Client, string) (any, error)) error {
	if len(refs) == 0 {
		return exitError{exitInvalid, backendai.Errorf(backendai.CodeInvalidParams, "no session is named").WithHint("'backend.ai ps' lists them")}
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	var first error
	for i, ref := range refs {
		e.term.Wait(waiting, ref)
		item, err := do(ctx, c, ref)
		if err == nil {
			err = e.done(item, done, ref)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil, len(refs) == 1:
			return err
		default:
			e.report(ctx, nil, err)
			first = exitError{code: exitCode(err)}
		}
		if i == len(refs)-1 {
			return first
		}
	}
	return first
}

// showStats writes the last statistics of a session.
func (e *env) showStats(stats map[string]any) error {
	if e.output == outputJSON {
		return nil // they are part of the result
	}
	var rows [][]string
	for _, metric := range slices.Sorted(maps.Keys(stats)) {
		if value, ok := stats[metric].(map[string]any); ok {
			rows = append(rows, []string{metric, plainCell(value["current"]), fmt.Sprint(value["unit_hint"])})
		}
	}
	if len(rows) == 0 {
		e.term.Info("There are no statistics of this session.")
		return nil
	}
	return e.term.Table([]string{"Metric", "Value", "Unit"}, rows)
}
