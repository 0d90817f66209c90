package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// MaxDefinition bounds a definition file in bytes.
const MaxDefinition = 1 << 20

// Definition is how to start one service (API section 12). Texts are templates
// until Invocation or Action.Expand expands them.
type Definition struct {
	Command          []string
	Noop             bool // nothing to start: the app runs already
	Prestart         []Action
	Env              map[string]string
	URLTemplate      string // for the client, which expands {protocol}, {host} and {port}
	AllowedEnvs      []string
	AllowedArguments []string
	DefaultArguments []Argument // in the order of the file
}

// Argument is one option of a command with its values; a bare option has none.
type Argument struct {
	Name   string
	Values []string
}

// The kinds of Action.
const (
	ActionWriteFile     = "write_file"
	ActionWriteTempfile = "write_tempfile"
	ActionMkdir         = "mkdir"
	ActionRunCommand    = "run_command"
	ActionLog           = "log"
)

// Action is one step before a service starts. Which fields count depends on
// Kind; Ref, if not empty, names the variable that takes the result.
type Action struct {
	Kind     string
	Ref      string
	Filename string      // write_file
	Body     []string    // write_file, write_tempfile: lines
	Mode     fs.FileMode // write_file, write_tempfile
	Append   bool        // write_file
	Path     string      // mkdir, with its parents
	Command  []string    // run_command; its result are the fields out and err
	Echo     bool        // run_command: the output also goes to the log
	Message  string      // log
	Debug    bool        // log
}

// TempfileSuffix ends the name of a file that write_tempfile makes, because
// programs such as Jupyter tell the kind of a configuration by it. The action's
// result is the path.
const TempfileSuffix = ".py"

// ParseDefinition reads a definition file. Keys and actions that do not exist
// are errors: a misspelt one would otherwise start something else than was meant.
func ParseDefinition(data []byte) (Definition, error) {
	if len(data) > MaxDefinition {
		return Definition{}, fmt.Errorf("read service definition: %d bytes are more than the limit of %d", len(data), MaxDefinition)
	}
	var raw struct {
		Command          json.RawMessage   `json:"command"`
		Shell            json.RawMessage   `json:"shell"`
		Noop             bool              `json:"noop"`
		Prestart         []rawAction       `json:"prestart"`
		PrestartActions  []rawAction       `json:"prestart_actions"`
		Env              map[string]string `json:"env"`
		URLTemplate      string            `json:"url_template"`
		AllowedEnvs      []string          `json:"allowed_envs"`
		AllowedArguments []string          `json:"allowed_arguments"`
		DefaultArguments json.RawMessage   `json:"default_arguments"`
	}
	if err := decodeStrictly(data, &raw); err != nil {
		return Definition{}, fmt.Errorf("read service definition: %w", err)
	}
	d := Definition{
		Noop: raw.Noop, Env: raw.Env, URLTemplate: raw.URLTemplate,
		AllowedEnvs: raw.AllowedEnvs, AllowedArguments: raw.AllowedArguments,
	}
	var err error
	if d.Command, err = parseCommand(raw.Command, raw.Shell); err != nil {
		return Definition{}, fmt.Errorf("read service definition: %w", err)
	}
	if len(d.Command) == 0 && !d.Noop {
		return Definition{}, fmt.Errorf("read service definition: it has no command and is not noop")
	}
	for i, a := range append(raw.Prestart, raw.PrestartActions...) {
		action, err := a.parse()
		if err != nil {
			return Definition{}, fmt.Errorf("read service definition: prestart action %d: %w", i+1, err)
		}
		d.Prestart = append(d.Prestart, action)
	}
	if d.DefaultArguments, err = parseArguments(raw.DefaultArguments); err != nil {
		return Definition{}, fmt.Errorf("read service definition: %w", err)
	}
	return d, nil
}

func decodeStrictly(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("something follows the object")
	}
	return nil
}

// parseCommand reads an argument list, or a text for a shell: the key shell
// names it, bash when absent, none (the text is split into words) when null.
func parseCommand(command, shell json.RawMessage) ([]string, error) {
	if len(command) == 0 || string(command) == "null" {
		return nil, nil
	}
	var list []string
	if json.Unmarshal(command, &list) == nil {
		return list, nil
	}
	var text string
	if err := json.Unmarshal(command, &text); err != nil {
		return nil, fmt.Errorf("command is neither a text nor a list of texts")
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	switch {
	case len(shell) == 0:
		return []string{"bash", "-c", text}, nil
	case string(shell) == "null":
		return splitWords(text)
	}
	var program string
	if err := json.Unmarshal(shell, &program); err != nil || program == "" {
		return nil, fmt.Errorf("shell is neither the name of a program nor null")
	}
	return []string{program, "-c", text}, nil
}

// parseArguments reads an object of option to null, text or list of texts, in
// its order.
func parseArguments(data json.RawMessage) ([]Argument, error) {
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("default_arguments is not an object")
	}
	var args []Argument
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("default_arguments: %w", err)
		}
		name, _ := t.(string)
		if slices.ContainsFunc(args, func(a Argument) bool { return a.Name == name }) {
			return nil, fmt.Errorf("default_arguments has %q twice", clip(name))
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("default_arguments: %w", err)
		}
		values, err := argumentValues(value)
		if err != nil {
			return nil, fmt.Errorf("default_arguments: %q %w", clip(name), err)
		}
		args = append(args, Argument{Name: name, Values: values})
	}
	return args, nil
}

func argumentValues(data json.RawMessage) ([]string, error) {
	if string(data) == "null" {
		return nil, nil
	}
	var list []string
	if json.Unmarshal(data, &list) == nil {
		return list, nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return nil, fmt.Errorf("is neither null, a text nor a list of texts")
	}
	return []string{text}, nil
}

// rawAction is an action as the file has it; which arguments it may have
// depends on its kind.
type rawAction struct {
	Action string          `json:"action"`
	Args   json.RawMessage `json:"args"`
	Ref    string          `json:"ref"`
}

func (r rawAction) parse() (Action, error) {
	a := Action{Kind: r.Action, Ref: r.Ref}
	if len(r.Args) == 0 {
		r.Args = json.RawMessage("{}")
	}
	var err error
	switch r.Action {
	case ActionWriteFile:
		args := struct {
			Filename string   `json:"filename"`
			Body     []string `json:"body"`
			Mode     string   `json:"mode"`
			Append   bool     `json:"append"`
		}{Mode: "644"}
		err = decodeStrictly(r.Args, &args)
		a.Filename, a.Body, a.Append = args.Filename, args.Body, args.Append
		if err == nil && a.Filename == "" {
			err = fmt.Errorf("there is no filename")
		}
		if err == nil {
			a.Mode, err = parseMode(args.Mode)
		}
	case ActionWriteTempfile:
		args := struct {
			Body []string `json:"body"`
			Mode string   `json:"mode"`
		}{Mode: "644"}
		err = decodeStrictly(r.Args, &args)
		a.Body = args.Body
		if err == nil {
			a.Mode, err = parseMode(args.Mode)
		}
	case ActionMkdir:
		var args struct {
			Path string `json:"path"`
		}
		err = decodeStrictly(r.Args, &args)
		a.Path = args.Path
		if err == nil && a.Path == "" {
			err = fmt.Errorf("there is no path")
		}
	case ActionRunCommand:
		var args struct {
			Command []string `json:"command"`
			Echo    bool     `json:"echo"`
		}
		err = decodeStrictly(r.Args, &args)
		a.Command, a.Echo = args.Command, args.Echo
		if err == nil && len(a.Command) == 0 {
			err = fmt.Errorf("there is no command")
		}
	case ActionLog:
		var args struct {
			Message string `json:"message"`
			Debug   bool   `json:"debug"`
		}
		err = decodeStrictly(r.Args, &args)
		a.Message, a.Debug = args.Message, args.Debug
	default:
		return a, fmt.Errorf("there is no action %q", clip(r.Action))
	}
	if err != nil {
		return a, fmt.Errorf("%s: %w", r.Action, err)
	}
	return a, nil
}

func parseMode(text string) (fs.FileMode, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o777 {
		return 0, fmt.Errorf("mode %q is not three octal digits", clip(text))
	}
	return fs.FileMode(mode), nil
}

// Expand returns the action with its templates expanded. The lines of a body
// then end in newlines, so that joined they are the file's content.
func (a Action) Expand(v Variables) (Action, error) {
	var err error
	for _, text := range []*string{&a.Filename, &a.Path, &a.Message} {
		if *text, err = v.Expand(*text); err != nil {
			return Action{}, fmt.Errorf("%s: %w", a.Kind, err)
		}
	}
	if a.Command, err = v.expandAll(a.Command); err != nil {
		return Action{}, fmt.Errorf("%s: %w", a.Kind, err)
	}
	if a.Body, err = v.expandAll(a.Body); err != nil {
		return Action{}, fmt.Errorf("%s: %w", a.Kind, err)
	}
	for i, line := range a.Body {
		// write_file puts one line a text; in write_tempfile texts bring their own ends.
		if a.Kind == ActionWriteFile || !strings.HasSuffix(line, "\n") {
			a.Body[i] = line + "\n"
		}
	}
	return a, nil
}

// Request is what a user asks of a service's start.
type Request struct {
	Arguments map[string][]string // only of AllowedArguments; no values for a bare option
	Envs      map[string]string   // only of AllowedEnvs
}

// Invocation expands what is to be run: the command with the default arguments,
// which the user's replace, and the variables to add to the environment. inEnv
// tells whether the session's environment already has a name, which a user may
// then not set; nil means it has none.
func (d Definition) Invocation(v Variables, req Request, inEnv func(name string) bool) (argv []string, env map[string]string, err error) {
	if argv, err = v.expandAll(d.Command); err != nil {
		return nil, nil, err
	}
	env = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		key, err := v.Expand(name)
		if err != nil {
			return nil, nil, err
		}
		if env[key], err = v.Expand(d.Env[name]); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(req.Envs)) {
		if !slices.Contains(d.AllowedEnvs, name) {
			return nil, nil, fmt.Errorf("the service does not take the environment variable %q", clip(name))
		}
		if inEnv != nil && inEnv(name) {
			return nil, nil, fmt.Errorf("the environment variable %q is already set in the session", clip(name))
		}
		env[name] = req.Envs[name]
	}
	args, err := d.merge(req.Arguments)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range args {
		argv = append(append(argv, a.Name), a.Values...)
	}
	return argv, env, nil
}

// merge replaces defaults by what the user says, in place; what has no default
// follows in order of name, so that a start is repeatable.
func (d Definition) merge(user map[string][]string) ([]Argument, error) {
	args := slices.Clone(d.DefaultArguments)
	for _, name := range slices.Sorted(maps.Keys(user)) {
		if !slices.Contains(d.AllowedArguments, name) {
			return nil, fmt.Errorf("the service does not take the argument %q", clip(name))
		}
		i := slices.IndexFunc(args, func(a Argument) bool { return a.Name == name })
		if i < 0 {
			args = append(args, Argument{Name: name, Values: user[name]})
			continue
		}
		args[i].Values = user[name]
	}
	return args, nil
}
