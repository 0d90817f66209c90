// Package images holds the recipes of the stock images, which
// "backend.ai image build NAME" makes from the packages of the distribution
// that the server runs on. The form of a recipe is described at image.Recipe.
package images

import (
	"embed"
	"io/fs"
)

//go:embed *.toml
var recipes embed.FS

// Recipes gives the files, one <name>.toml for each image.
func Recipes() fs.FS { return recipes }
