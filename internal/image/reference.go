package image

import (
	"runtime"
	"strings"

	"github.com/distribution/reference"

	"backendai"
)

// localRegistry holds the images that this machine builds; no host has it.
const localRegistry = "localhost"

// canonical completes a reference to registry/repository:tag, or
// registry/repository@digest, by the ecosystem's rules: docker.io/library and
// latest are what is left out.
func canonical(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", backendai.Errorf(backendai.CodeInvalidParams, "%q is not the name of an image: %w", name, err)
	}
	if digested, ok := named.(reference.Digested); ok {
		// A tag beside a digest says nothing more.
		return reference.TrimNamed(named).Name() + "@" + digested.Digest().String(), nil
	}
	return reference.TagNameOnly(named).String(), nil
}

// hasRegistry tells whether a name says which registry it is of, as opposed to
// a short name. Upper case, too, makes a first part a host to the ecosystem,
// since repositories have none.
func hasRegistry(name string) bool {
	first, _, ok := strings.Cut(name, "/")
	return ok && (first == localRegistry || strings.ContainsAny(first, ".:") || strings.ToLower(first) != first)
}

// pullable tells whether a canonical reference can be had from a registry.
func pullable(ref string) bool { return !strings.HasPrefix(ref, localRegistry+"/") }

// splitTag splits off the tag of a name, "" when it has none.
func splitTag(name string) (repository, tag string) {
	slash := strings.LastIndexByte(name, '/')
	if i := strings.LastIndexByte(name, ':'); i > slash {
		return name[:i], name[i+1:]
	}
	return name, ""
}

// matchShort tells whether a short name means the image of a canonical
// reference: its repository ends in the name's, and its tag is the name's or
// goes on after it with "." or "-" (so python:3.11 means 3.11-debian12).
func matchShort(ref, short string) bool {
	if strings.Contains(ref, "@") {
		return false
	}
	repository, tag := splitTag(ref)
	name, wanted := splitTag(short)
	if !strings.HasSuffix("/"+repository, "/"+name) {
		return false
	}
	rest, ok := strings.CutPrefix(tag, wanted)
	return ok && (wanted == "" || rest == "" || rest[0] == '.' || rest[0] == '-')
}

// Architectures have two names: the protocol's and that of OCI and Go.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

func protocolArch(oci string) string {
	if name, ok := architectures[oci]; ok {
		return name
	}
	return oci
}

// hostArch is the OCI name of this machine's architecture.
func hostArch() string { return runtime.GOARCH }
