package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"backendai/internal/client"
	"backendai/internal/term"
)

// newImagePullCommand is "image pull".
func newImagePullCommand(e *env) *cobra.Command {
	var arch string
	cmd := &cobra.Command{
		Use: "pull IMAGE", Short: "Download an image to the server's machine", Args: arguments("IMAGE"),
		Long: "Downloads an image from its registry to the server's machine, which checks every layer by its digest. What is there already is not downloaded again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.imageWork(cmd.Context(), func(ctx context.Context, c *client.Client, step func(client.ImageStep)) ([]client.Image, error) {
				return c.PullImage(ctx, args[0], arch, step)
			})
		},
	}
	cmd.Flags().StringVar(&arch, "arch", "", "`NAME` of the architecture, such as x86_64; without it the server's")
	return document(cmd, manual{
		arguments: [][2]string{{"IMAGE", "full reference (registry/name:tag), or an alias or short name that the server knows"}},
		examples:  [][2]string{{"An image of Docker Hub", "backend.ai image pull docker.io/library/debian:12"}},
	})
}

// imageWork does what makes images on the server, shows how far it has come,
// and tells which images there are then.
func (e *env) imageWork(ctx context.Context, work func(context.Context, *client.Client, func(client.ImageStep)) ([]client.Image, error)) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	watch := &imageWatch{tell: e.term}
	images, err := work(ctx, c, watch.step)
	watch.close()
	if err != nil {
		return err
	}
	names := make([]string, len(images))
	for i, image := range images {
		names[i] = image.Ref
	}
	if len(images) == 1 {
		return e.done(images, "The image %s is ready.", names[0])
	}
	return e.done(images, "%d images are ready: %s", len(images), strings.Join(names, ", "))
}

// imageWatch shows the steps of the work on an image. It is for one goroutine.
type imageWatch struct {
	tell *term.Printer
	bar  *term.Progress // nil while lines are shown
}

func (w *imageWatch) step(s client.ImageStep) {
	if s.Progress == nil {
		w.close()
		w.tell.Line(s.Line)
		return
	}
	w.set(s.Progress.Stage+" "+s.Progress.Ref, s.Progress.Done, s.Progress.Total)
}

func (w *imageWatch) set(label string, done, total int64) {
	if w.bar == nil {
		w.bar = w.tell.Progress()
	}
	w.bar.Set(label, done, total)
}

func (w *imageWatch) close() {
	if w.bar != nil {
		w.bar.Close()
		w.bar = nil
	}
}

// errOneOf is a command line with neither or both of two things.
func errOneOf(this, that string, both bool) error {
	if both {
		return shape(errors.New("give either " + this + " or " + that + ", not both"))
	}
	return shape(errors.New("give " + this + " or " + that))
}
