package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"backendai"
)

// params are the parameters of one request, from its query and its JSON body;
// the body wins. The protocol's clients moved parameters between both, renamed
// them, and send numbers as text: each reader takes all names and forms of a
// parameter. What does not fit is noted, and err tells all of it at once.
// Unknown parameters are ignored.
type params struct {
	values map[string]any
	prefix string            // of the names in faults
	faults map[string]string // parameter → what is wrong with it
}

// readParams reads the query and, unless the body is data, the body.
func readParams(w http.ResponseWriter, r *http.Request, rawBody bool) (*params, error) {
	p := &params{values: map[string]any{}, faults: map[string]string{}}
	for name, values := range r.URL.Query() {
		if len(values) == 1 {
			p.values[name] = values[0]
			continue
		}
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = v
		}
		p.values[name] = list
	}
	if rawBody || r.Body == nil || r.ContentLength == 0 {
		return p, nil
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime)) // a writer without deadlines belongs to a test
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, backendai.Errorf(backendai.CodeInvalidParams, "the body has more than %s", backendai.FormatSize(maxBody))
		}
		return nil, backendai.Errorf(backendai.CodeBadRequest, "the body did not arrive: %w", err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return p, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var values map[string]any
	if err := d.Decode(&values); err != nil {
		return nil, backendai.Errorf(backendai.CodeInvalidParams, "the body is not a JSON object: %w", err)
	}
	maps.Copy(p.values, values)
	return p, nil
}

// raw finds the first of the names that has a value; null is none.
func (p *params) raw(names []string) (value any, name string, ok bool) {
	for _, name := range names {
		if v := p.values[name]; v != nil {
			return v, name, true
		}
	}
	return nil, names[0], false
}

func (p *params) fault(name, format string, args ...any) {
	p.faults[p.prefix+name] = fmt.Sprintf(format, args...)
}

// err tells every fault that was noted, or nil.
func (p *params) err() error {
	if len(p.faults) == 0 {
		return nil
	}
	title := "invalid parameters"
	if len(p.faults) == 1 {
		for name, text := range p.faults {
			title = fmt.Sprintf("invalid parameter %s: %s", name, text)
		}
	}
	return backendai.Errorf(backendai.CodeInvalidParams, "%s", title).WithData(p.faults)
}

// scalar is the text of a string, number or boolean.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	default:
		return "", false
	}
}

func (p *params) text(otherwise string, names ...string) string {
	v, name, ok := p.raw(names)
	if !ok {
		return otherwise
	}
	text, ok := scalar(v)
	if !ok {
		p.fault(name, "is not a text")
	}
	return text
}

// required is a text that must be there.
func (p *params) required(names ...string) string {
	text := p.text("", names...)
	if text == "" {
		p.fault(names[0], "is required")
	}
	return text
}

func (p *params) flag(otherwise bool, names ...string) bool {
	v, name, ok := p.raw(names)
	if !ok {
		return otherwise
	}
	text, _ := scalar(v)
	switch strings.ToLower(text) {
	case "true", "1", "yes", "y", "on", "t":
		return true
	case "false", "0", "no", "n", "off", "f":
		return false
	}
	p.fault(name, "is neither true nor false")
	return otherwise
}

func (p *params) integer(otherwise, least, most int, names ...string) int {
	v, name, ok := p.raw(names)
	if !ok {
		return otherwise
	}
	text, _ := scalar(v)
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		p.fault(name, "is not a whole number")
		return otherwise
	}
	if n < least || n > most {
		p.fault(name, "is not between %d and %d", least, most)
		return otherwise
	}
	return n
}

// texts is a list of texts; it may come as a JSON list, alone, with commas, or as JSON text.
func (p *params) texts(names ...string) []string {
	v, name, ok := p.raw(names)
	if !ok {
		return nil
	}
	if text, ok := scalar(v); ok {
		if !strings.HasPrefix(strings.TrimSpace(text), "[") {
			return nonEmpty(strings.Split(text, ","))
		}
		if v, ok = decode(text); !ok {
			p.fault(name, "is not a list")
			return nil
		}
	}
	list, ok := v.([]any)
	if !ok {
		p.fault(name, "is not a list")
		return nil
	}
	texts := make([]string, 0, len(list))
	for _, v := range list {
		text, ok := scalar(v)
		if !ok {
			p.fault(name, "has an element that is not a text")
		}
		texts = append(texts, text)
	}
	return texts
}

func nonEmpty(texts []string) []string {
	var kept []string
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			kept = append(kept, t)
		}
	}
	return kept
}

// object is a JSON object, which may come as JSON text; nil when absent.
func (p *params) object(names ...string) map[string]any {
	v, name, ok := p.raw(names)
	if !ok {
		return nil
	}
	if text, isText := v.(string); isText {
		if strings.TrimSpace(text) == "" {
			return nil
		}
		v, _ = decode(text)
	}
	m, ok := v.(map[string]any)
	if !ok {
		p.fault(name, "is not an object")
	}
	return m
}

// decode reads JSON text that stands inside another value.
func decode(text string) (any, bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	return v, d.Decode(&v) == nil
}

// textMap is an object of texts; numbers become text and nulls are left out.
func (p *params) textMap(names ...string) map[string]string {
	object := p.object(names...)
	_, name, _ := p.raw(names)
	m := make(map[string]string, len(object))
	for k, v := range object {
		if v == nil {
			continue
		}
		text, ok := scalar(v)
		if !ok {
			p.fault(name+"."+k, "is not a text")
		}
		m[k] = text
	}
	return m
}

// sub is the parameters inside an object; faults are noted with its name.
func (p *params) sub(name string) *params {
	values := p.object(name)
	if values == nil {
		values = map[string]any{}
	}
	return &params{values: values, prefix: p.prefix + name + ".", faults: p.faults}
}

var durationUnits = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}

// parseDuration reads seconds, or a number with one of the units s, m, h, d and w.
func parseDuration(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	unit := time.Second
	if n := len(text); n > 0 && durationUnits[text[n-1]] != 0 {
		unit, text = durationUnits[text[n-1]], text[:n-1]
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0) || f*float64(unit) > float64(1<<62) {
		return 0, false
	}
	return time.Duration(f * float64(unit)), true
}

func (p *params) duration(names ...string) time.Duration {
	v, name, ok := p.raw(names)
	if !ok {
		return 0
	}
	text, _ := scalar(v)
	d, ok := parseDuration(text)
	if !ok {
		p.fault(name, "is not a duration such as 30s, 5m, 1h, 2d or 1w")
	}
	return d
}

// moment is a time, or a duration from now; zero when absent.
func (p *params) moment(now time.Time, names ...string) time.Time {
	v, name, ok := p.raw(names)
	if !ok {
		return time.Time{}
	}
	text, _ := scalar(v)
	if text = strings.TrimSpace(text); text == "" {
		return time.Time{}
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t
		}
	}
	d, ok := parseDuration(text)
	if !ok {
		p.fault(name, "is neither a time such as 2026-01-02T15:04:05Z nor a duration such as 30m")
		return time.Time{}
	}
	return now.Add(d)
}
