package image

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"backendai"
	"backendai/internal/image/service"
)

// Recipe is how to build an image from the packages of the server's own
// distribution, as a TOML file:
//
//	name        = "python"            # becomes localhost/python:TAG
//	description = "one line"
//	version     = "python3 --version | cut -d' ' -f2"
//	packages    = ["python3", …]
//	commands    = ["…"]               # run by sh -e in the finished system, as root
//	[labels]                          # API section 11
//	[env]
//	[files]                           # absolute path = content
//
// TAG is what the command in version prints, a dash, and the distribution with
// its release: 3.11-debian12. Without version it is the distribution alone. The
// key tag, if it is there, is used instead.
//
// A recipe's commands run as root on the server's machine, so who may build may
// do anything there.
type Recipe struct {
	Name        string            `toml:"name"`
	Description string            `toml:"description"`
	Tag         string            `toml:"tag"`
	Version     string            `toml:"version"`
	Packages    []string          `toml:"packages"`
	Commands    []string          `toml:"commands"`
	Labels      map[string]string `toml:"labels"`
	Env         map[string]string `toml:"env"`
	Files       map[string]string `toml:"files"`
}

var (
	recipeNameRE  = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)
	recipeTagRE   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	packageNameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(/[a-z0-9-]+|=[A-Za-z0-9.+~:-]+)?$`)
	envNameRE     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// ParseRecipe reads and checks a recipe; a key that does not exist is an error.
func ParseRecipe(text string) (Recipe, error) {
	var r Recipe
	meta, err := toml.Decode(text, &r)
	if err != nil {
		return r, fmt.Errorf("read recipe: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return r, fmt.Errorf("read recipe: there is no key %q", unknown[0].String())
	}
	if err := r.check(); err != nil {
		return r, fmt.Errorf("read recipe: %w", err)
	}
	return r, nil
}

func (r Recipe) check() error {
	if !recipeNameRE.MatchString(r.Name) {
		return fmt.Errorf("name %q is not of lower-case letters and digits with . _ - between", r.Name)
	}
	if r.Tag != "" && !recipeTagRE.MatchString(r.Tag) {
		return fmt.Errorf("tag %q is not a tag", r.Tag)
	}
	for _, p := range r.Packages {
		if !packageNameRE.MatchString(p) {
			return fmt.Errorf("%q is not the name of a package", p)
		}
	}
	for name := range r.Env {
		if !envNameRE.MatchString(name) {
			return fmt.Errorf("%q is not the name of an environment variable", name)
		}
	}
	if _, err := service.ParseServicePorts(r.Labels[service.LabelServicePorts]); err != nil {
		return err
	}
	for name, content := range r.Files {
		if !path.IsAbs(name) || path.Clean(name) != name || name == "/" {
			return fmt.Errorf("file %q has no clean absolute path", name)
		}
		if path.Dir(name) != service.DefinitionDir {
			continue
		}
		if _, err := service.ParseDefinition([]byte(content)); err != nil {
			return fmt.Errorf("file %q: %w", name, err)
		}
	}
	return nil
}

// Recipes lists the recipes that Build knows by name.
func (s *Store) Recipes() ([]Recipe, error) {
	files, err := fs.Glob(s.opts.Recipes, "*.toml")
	if err != nil {
		return nil, fmt.Errorf("list recipes: %w", err)
	}
	var all []Recipe
	for _, name := range files {
		r, err := s.recipe(strings.TrimSuffix(name, ".toml"))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// recipe reads a recipe by its name, or as a text if it has more than one line.
func (s *Store) recipe(recipe string) (Recipe, error) {
	text := recipe
	if !strings.Contains(recipe, "\n") {
		if s.recipeFor(recipe) != recipe {
			return Recipe{}, backendai.NotFound("recipe", recipe).
				WithHint("there are: %s; or give a file: backend.ai image build -f FILE", strings.Join(s.recipeNames(), ", "))
		}
		data, err := fs.ReadFile(s.opts.Recipes, recipe+".toml")
		if err != nil {
			return Recipe{}, fmt.Errorf("read recipe %q: %w", recipe, err)
		}
		text = string(data)
	}
	r, err := ParseRecipe(text)
	if err != nil {
		return Recipe{}, backendai.Errorf(backendai.CodeInvalidParams, "the recipe cannot be used: %w", err)
	}
	return r, nil
}

func (s *Store) recipeNames() []string {
	files, _ := fs.Glob(s.opts.Recipes, "*.toml")
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, ".toml")
	}
	return files
}

// environment is the image's environment: a PATH and what the recipe sets.
func (r Recipe) environment() []string {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	maps.Copy(env, r.Env)
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}
