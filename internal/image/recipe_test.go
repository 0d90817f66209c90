package image_test

import (
	"strings"
	"testing"

	"backendai"
	"backendai/images"
	"backendai/internal/image"
)

func TestStockRecipes(t *testing.T) {
	s := open(t, func(o *image.Options) { o.Recipes = images.Recipes() })
	all, err := s.Recipes()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range all {
		names[r.Name] = true
		if r.Description == "" || len(r.Packages) == 0 {
			t.Errorf("recipe %+v is not complete", r)
		}
	}
	if !names["python"] || !names["base"] {
		t.Errorf("recipes are %v", names)
	}
}

func TestParseRecipe(t *testing.T) {
	for text, fault := range map[string]string{
		"name = \"x\"\npackages = [\"python3\", \"libc6:amd64\", \"git=1:2.39-1\", \"vim/bookworm\"]": "",
		"name = \"x\"\ncolour = \"red\"": `"colour"`,
		"name = ":                        "read recipe",
		"name = \"Up\"":                  "name",
		"name = \"../x\"":                "name",
		"packages = [\"x\"]":             "name",
		"name = \"x\"\ntag = \"a/b\"":    "tag",
		"name = \"x\"\npackages = [\"--keyring=/evil\"]":                          "package",
		"name = \"x\"\npackages = [\"a,b\"]":                                      "package",
		"name = \"x\"\n[env]\n\"A B\" = \"c\"":                                    "environment",
		"name = \"x\"\n[files]\n\"relative\" = \"c\"":                             "path",
		"name = \"x\"\n[files]\n\"/a/../b\" = \"c\"":                              "path",
		"name = \"x\"\n[files]\n\"/etc/backend.ai/service-defs/x.json\" = \"{}\"": "no command",
		"name = \"x\"\n[labels]\n\"ai.backend.service-ports\" = \"x:http:80\"":    "port 80",
	} {
		_, err := image.ParseRecipe(text)
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%q: error %v, want one with %q", text, err, fault)
		}
	}
}

func TestBuildOfNothing(t *testing.T) {
	s := open(t)
	_, err := s.Build(t.Context(), "nothing", nil)
	wantError(t, err, backendai.CodeNotFound, "nothing", "python")
	_, err = s.Build(t.Context(), "../../etc/passwd", nil)
	wantError(t, err, backendai.CodeNotFound, "recipe")
	_, err = s.Build(t.Context(), "name = 5\nx = 1\n", nil)
	wantError(t, err, backendai.CodeInvalidParams, "recipe")
	t.Setenv("PATH", t.TempDir())
	_, err = s.Build(t.Context(), "python", nil)
	wantError(t, err, backendai.CodeUnavailable, "apt-get install mmdebstrap")
}
