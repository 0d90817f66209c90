package api

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"backendai"
)

// imageData is an image on the wire of the extension endpoints.
type imageData struct {
	Ref          string            `json:"ref"`
	Digest       string            `json:"digest"`
	Architecture string            `json:"architecture"`
	Size         int64             `json:"size"`
	Labels       map[string]string `json:"labels,omitempty"`
	Aliases      []string          `json:"aliases"`
	CreatedAt    time.Time         `json:"created_at"`
}

func imageOf(i backendai.Image) *imageData {
	return &imageData{i.Ref, i.Digest, i.Architecture, i.Size, i.Labels, nonNil(i.Aliases), i.CreatedAt}
}

// imageLine is one line of the answer to a call that takes long: how far it is,
// a line of its output, and at the end the images or the problem.
type imageLine struct {
	Progress *progress  `json:"progress,omitempty"`
	Line     *string    `json:"line,omitempty"`
	Image    *imageData `json:"image,omitempty"`
	Error    *problem   `json:"error,omitempty"`
}

func (h *Handler) listImages(c *call) error {
	images, err := h.opts.Images.List(c.r.Context())
	if err != nil {
		return err
	}
	list := make([]*imageData, 0, len(images))
	for _, i := range images {
		list = append(list, imageOf(i))
	}
	return c.json(http.StatusOK, map[string]any{"images": list})
}

func (h *Handler) removeImage(c *call) error {
	ref := c.required("ref", "name")
	if err := c.err(); err != nil {
		return err
	}
	if err := h.opts.Images.Remove(c.r.Context(), ref); err != nil {
		return err
	}
	return c.noContent()
}

// pullImage downloads an image by alias, short name or reference.
func (h *Handler) pullImage(c *call) error {
	ref := c.required("ref", "name", "image")
	arch := c.text("", "architecture", "arch")
	if err := c.err(); err != nil {
		return err
	}
	image, err := h.opts.Images.Resolve(c.r.Context(), ref, arch)
	if err != nil {
		return err
	}
	return h.streamImages(c, func(lines *lineWriter) ([]backendai.Image, error) {
		got, err := h.opts.Images.Pull(c.r.Context(), image.Ref, lines.progress)
		return []backendai.Image{got}, err
	})
}

// buildImage makes a stock image.
func (h *Handler) buildImage(c *call) error {
	recipe := c.required("recipe", "name")
	if err := c.err(); err != nil {
		return err
	}
	return h.streamImages(c, func(lines *lineWriter) ([]backendai.Image, error) {
		got, err := h.opts.Images.Build(c.r.Context(), recipe, lines.line)
		return []backendai.Image{got}, err
	})
}

// importImage reads an archive from the body of the request.
func (h *Handler) importImage(c *call) error {
	name := c.text("", "name", "ref")
	if err := c.err(); err != nil {
		return err
	}
	// Progress is sent while the body still comes.
	_ = http.NewResponseController(c.w).EnableFullDuplex()
	return h.streamImages(c, func(lines *lineWriter) ([]backendai.Image, error) {
		return h.opts.Images.Import(c.r.Context(), c.r.Body, name, lines.progress)
	})
}

// streamImages answers with lines while work goes on. The status is sent with
// the first line; a failure after it is the last line.
func (h *Handler) streamImages(c *call, work func(*lineWriter) ([]backendai.Image, error)) error {
	lines := &lineWriter{rc: c.stream("application/x-ndjson"), to: json.NewEncoder(c.w)}
	images, err := work(lines)
	if err != nil {
		p, status := problemOf(err, c.id)
		if status >= http.StatusInternalServerError {
			h.log.Error("request failed", "request", c.id, "path", c.r.URL.Path, "err", cause(err))
		}
		lines.write(imageLine{Error: &p})
		return nil
	}
	for _, i := range images {
		lines.write(imageLine{Image: imageOf(i)})
	}
	return nil
}

// lineWriter writes lines of JSON, each at once. A client that has gone ends
// the work by the context of its request, so failures to write are not told.
type lineWriter struct {
	rc *http.ResponseController
	mu sync.Mutex // held while a line is written: progress may come from several goroutines
	to *json.Encoder
}

func (l *lineWriter) write(line imageLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to.Encode(line) == nil {
		_ = l.rc.Flush()
	}
}

func (l *lineWriter) progress(p backendai.PullProgress) {
	wire := progress(p)
	l.write(imageLine{Progress: &wire})
}

func (l *lineWriter) line(text string) { l.write(imageLine{Line: &text}) }
