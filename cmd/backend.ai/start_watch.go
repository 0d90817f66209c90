package main

import (
	"context"
	"strings"
	"time"

	"backendai"
	"backendai/internal/client"
	"backendai/internal/term"
)

// startWatch shows what goes on while a session starts. It begins only after
// the patience of the environment, so that a fast start costs nothing.
type startWatch struct {
	e           *env
	c           *client.Client
	name, owner string

	waited bool // set once the watch has begun; read after the end
	bar    *term.Progress
}

// begin starts to watch. The function that it returns ends that and waits for the end.
func (w *startWatch) begin(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer w.closeBar()
		timer := time.NewTimer(w.e.patience)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		w.waited = true
		w.e.term.Wait("Waiting for session %s…", w.name)
		// What fails here is told by the call that is waited for, if it matters.
		_ = w.c.Events(ctx, client.EventFilter{Session: w.name, Owner: w.owner}, func() error { return w.now(ctx) }, w.event)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// now shows the status that the session has reached before the events came.
func (w *startWatch) now(ctx context.Context) error {
	info, err := w.c.SessionInfo(ctx, w.name)
	if err == nil && !info.Status.Final() && info.Status != backendai.StatusRunning {
		text := strings.ToLower(string(info.Status))
		if info.Message != "" {
			text += ", " + info.Message
		}
		w.e.term.Wait("Session %s: %s", w.name, text)
	}
	return nil
}

// event shows one event.
func (w *startWatch) event(event client.Event) error {
	data := event.Decode()
	if data.SessionName != "" && data.SessionName != w.name {
		return nil
	}
	if p := data.Progress; p != nil {
		if w.bar == nil {
			w.bar = w.e.term.Progress()
		}
		w.bar.Set(p.Stage+" "+p.Ref, p.Done, p.Total)
		return nil
	}
	w.closeBar()
	_, step, _ := strings.Cut(event.Name, "_")
	w.e.term.Wait("Session %s: %s", w.name, strings.ReplaceAll(step, "_", " "))
	return nil
}

func (w *startWatch) closeBar() {
	if w.bar != nil {
		w.bar.Close()
		w.bar = nil
	}
}
