package backendai

import "time"

// Image is what sessions are made of. An image that is known but not on this
// machine has no Digest, Labels or Size.
type Image struct {
	Ref          string // canonical: registry/repository:tag
	Digest       string // of the platform's manifest; "" when not present
	Architecture string // the protocol's name: x86_64 or aarch64
	Size         int64  // bytes, unpacked
	Labels       map[string]string
	Env          []string // NAME=value of the image's config
	WorkingDir   string
	Aliases      []string
	CreatedAt    time.Time
}

// Present tells whether the image is on this machine.
func (i Image) Present() bool { return i.Digest != "" }

// PullProgress is how far the download of an image has come. Total is 0 until
// it is known; both are bytes.
type PullProgress struct {
	Ref    string
	Stage  string // "resolving", "downloading", "unpacking", "done"
	Done   int64
	Total  int64
	Layers int
}
