package fake_test

import (
	"testing"

	"backendai"
	"backendai/internal/engine"
	"backendai/internal/engine/enginetest"
	"backendai/internal/engine/fake"
)

func TestSuite(t *testing.T) {
	enginetest.Run(t, enginetest.Driver{
		Image: backendai.Image{Ref: "fake"},
		Open: func(t *testing.T, dir string) (engine.Engine, func()) {
			e, err := fake.New(fake.Options{Dir: dir})
			if err != nil {
				t.Fatalf("make engine: %v", err)
			}
			return e, func() {
				if err := e.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		},
	})
}
