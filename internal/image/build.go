package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"backendai"
)

const (
	builder      = "mmdebstrap"
	stopGrace    = 10 * time.Second // from asking the builder to end to killing it
	keptLines    = 15               // of the builder's output, for the error
	maxBuildLine = 64 << 10
)

// Build makes an image from a recipe: the name of one that the server has, or
// the text of one (anything of more than one line). Packages come from the apt
// sources, keyrings, proxies and package cache of the machine, so that it works
// wherever apt does. progress, which may be nil, gets what the builder prints.
//
// The new system is put together in memory when there is enough and streamed
// straight into its layer: nothing is compressed and no archive is written.
func (s *Store) Build(ctx context.Context, recipe string, progress func(line string)) (backendai.Image, error) {
	r, err := s.recipe(recipe)
	if err != nil {
		return backendai.Image{}, err
	}
	if _, err := exec.LookPath(builder); err != nil {
		return backendai.Image{}, backendai.Errorf(backendai.CodeUnavailable, "image %q cannot be built: %s is not installed on the server", r.Name, builder).
			WithHint("apt-get install %s", builder)
	}
	if progress == nil {
		progress = func(string) {}
	}
	return s.leased(s.inside(ctx), func(ctx context.Context) (backendai.Image, error) {
		image, err := s.build(ctx, r, progress)
		if err != nil && outOfSpace(err) {
			return image, s.diskFull(r.Name, err)
		}
		return image, err
	})
}

func (s *Store) build(ctx context.Context, r Recipe, progress func(string)) (_ backendai.Image, err error) {
	host, err := readDistribution("/etc/os-release")
	if err != nil {
		return backendai.Image{}, err
	}
	scratch, err := os.MkdirTemp(filepath.Join(s.opts.Root, "build"), r.Name+"-")
	if err != nil {
		return backendai.Image{}, fmt.Errorf("make folder for build: %w", err)
	}
	defer func() { err = errors.Join(err, removeScratch(scratch)) }()
	if err := mountScratch(scratch); err != nil {
		return backendai.Image{}, fmt.Errorf("prepare folder for build (root is needed): %w", err)
	}
	packages, err := checkOut(s.opts.Packages)
	if err != nil {
		return backendai.Image{}, fmt.Errorf("prepare build: %w", err)
	}
	defer func() { err = errors.Join(err, packages.close()) }()
	b := &build{recipe: r, host: host, scratch: scratch, packages: packages.dir, progress: progress}
	if err := b.prepare(ctx); err != nil {
		return backendai.Image{}, fmt.Errorf("prepare build: %w", err)
	}
	key, layer, err := s.runBuild(ctx, b)
	packages.checkIn(err == nil)
	if err != nil {
		return backendai.Image{}, err
	}
	tag, err := b.tag()
	if err != nil {
		s.discard(ctx, key)
		return backendai.Image{}, err
	}
	return s.finishBuild(ctx, b, localRegistry+"/"+r.Name+":"+tag, key, layer)
}

// runBuild runs the builder and unpacks what it puts out. The caller commits or
// discards the folder with the key.
func (s *Store) runBuild(ctx context.Context, b *build) (key string, layer ocispec.Descriptor, err error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	told := &lineRelay{progress: b.progress}
	cmd, output, err := b.command(running, told)
	if err != nil {
		return "", layer, err
	}
	defer output.Close()
	if err := cmd.Start(); err != nil {
		return "", layer, fmt.Errorf("start %s: %w", builder, err)
	}
	left := s.newBudget()
	key, sum, applyErr := s.apply(ctx, "", left.reader(output), left)
	if applyErr != nil {
		stop()
	}
	waitErr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case waitErr != nil && (applyErr == nil || !outOfSpace(applyErr) && !errors.Is(applyErr, errHostile)):
		// The stream of a builder that failed is cut short: its own words tell more.
		err = backendai.Errorf(backendai.CodeUnavailable, "image %q cannot be built: %w: %s", b.recipe.Name, waitErr, strings.Join(told.last, "\n")).
			WithHint("check that apt-get update works on the server")
	default:
		err = applyErr
	}
	if err != nil {
		if applyErr == nil {
			s.discard(ctx, key)
		}
		return "", layer, err
	}
	return key, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum, Size: s.opts.MaxUnpacked - left.bytes}, nil
}

// finishBuild writes the documents of a built layer and names the image.
func (s *Store) finishBuild(ctx context.Context, b *build, ref, key string, layer ocispec.Descriptor) (backendai.Image, error) {
	if err := s.commit(ctx, layer.Digest.String(), key); err != nil { // the first layer's chain is its checksum
		s.discard(ctx, key)
		return backendai.Image{}, err
	}
	now := time.Now().UTC()
	labels := maps.Clone(b.recipe.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels["ai.backend.base-distro"] = b.host.name()
	if b.recipe.Description != "" {
		labels[ocispec.AnnotationDescription] = b.recipe.Description
	}
	im := documents{config: ocispec.Image{
		Created:  &now,
		Platform: ocispec.Platform{OS: "linux", Architecture: hostArch()},
		Config:   ocispec.ImageConfig{Env: b.recipe.environment(), Labels: labels, Cmd: []string{"/bin/bash"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	}}
	config, err := s.writeDocument(ctx, ocispec.MediaTypeImageConfig, im.config)
	if err != nil {
		return backendai.Image{}, err
	}
	im.manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer},
	}
	if im.target, err = s.writeDocument(ctx, ocispec.MediaTypeImageManifest, im.manifest); err != nil {
		return backendai.Image{}, err
	}
	return s.unpack(ctx, ref, im)
}

func (s *Store) writeDocument(ctx context.Context, mediaType string, document any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(document)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write document of image: %w", err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(ctx, s.content, "build-"+desc.Digest.String(), bytes.NewReader(data), desc); err != nil {
		return desc, fmt.Errorf("write document of image: %w", err)
	}
	return desc, nil
}

// removeScratch takes away a build's folder; if something is still mounted
// there, nothing is deleted.
func removeScratch(dir string) error {
	if err := unmountScratch(dir); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return os.RemoveAll(dir)
}

// build is one run of the builder.
type build struct {
	recipe   Recipe
	host     distribution
	scratch  string // folder that goes when the build ends
	packages string // folder of downloaded packages
	progress func(line string)
}

func (b *build) in(name string) string { return filepath.Join(b.scratch, name) }

// prepare writes what the builder's hooks take from the scratch folder.
func (b *build) prepare(ctx context.Context) error {
	if err := os.Mkdir(b.in("tmp"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(b.in("apt.conf"), hostAptOptions(ctx), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(b.in("commands"), []byte(strings.Join(b.recipe.Commands, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return b.writeFiles(b.in("files.tar"))
}

// writeFiles makes an archive of the recipe's files, owned by root.
func (b *build) writeFiles(name string) error {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, p := range slices.Sorted(maps.Keys(b.recipe.Files)) {
		text := strings.TrimPrefix(b.recipe.Files[p], "\n")
		hdr := &tar.Header{Name: strings.TrimPrefix(p, "/"), Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, buf.Bytes(), 0o600)
}

// command makes the builder's command. output is the new system as an archive;
// messages takes what it prints.
func (b *build) command(ctx context.Context, messages io.Writer) (cmd *exec.Cmd, output io.ReadCloser, err error) {
	sources, err := aptSources("/etc/apt")
	if err != nil {
		return nil, nil, err
	}
	args := []string{
		"--verbose", "--mode=root", "--variant=minbase", "--format=tar",
		"--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*",
		`--aptopt=APT::Install-Recommends "false"`,
		"--skip=essential/unlink", "--skip=cleanup/apt/cache",
	}
	if len(b.recipe.Packages) > 0 {
		args = append(args, "--include="+strings.Join(b.recipe.Packages, ","))
	}
	for _, hook := range b.setupHooks() {
		args = append(args, "--setup-hook="+hook)
	}
	for _, hook := range b.customizeHooks() {
		args = append(args, "--customize-hook="+hook)
	}
	args = append(append(args, b.host.codename, "-"), sources...)
	// A service manager may have given the server a stricter mask than programs
	// that install systems expect.
	shell := []string{"-c", `umask 022 && exec "$0" "$@"`, builder}
	cmd = exec.CommandContext(ctx, "sh", append(shell, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+b.in("tmp"), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	// A group of its own, so that what it started ends with it.
	cmd.SysProcAttr = processGroup()
	cmd.Cancel = func() error { return signalGroup(cmd.Process, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	cmd.Stderr = messages
	output, err = cmd.StdoutPipe()
	return cmd, output, err
}

// setupHooks bring the host's apt options, credentials and certificates in,
// and its package cache by a bind mount.
func (b *build) setupHooks() []string {
	return []string{
		`mkdir -p "$1/etc/apt/apt.conf.d" "$1/etc/apt/auth.conf.d" "$1/etc/ssl/certs" "$1/var/cache/apt/archives"`,
		`cp ` + quote(b.in("apt.conf")) + ` "$1/etc/apt/apt.conf.d/00build"; chmod 644 "$1/etc/apt/apt.conf.d/00build"`,
		`for f in /etc/apt/auth.conf.d/*.conf; do if [ -e "$f" ]; then cp "$f" "$1/etc/apt/auth.conf.d/"; fi; done`,
		`if [ -e /etc/apt/auth.conf ]; then cp /etc/apt/auth.conf "$1/etc/apt/auth.conf"; fi`,
		`if [ -e /etc/ssl/certs/ca-certificates.crt ]; then cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"; fi`,
		`mount -o bind ` + quote(b.packages) + ` "$1/var/cache/apt/archives"`,
	}
}

// customizeHooks finish the system: the recipe's files and commands, its
// version, and then away with all that is this machine's.
func (b *build) customizeHooks() []string {
	hooks := []string{
		`tar-in ` + b.in("files.tar") + ` /`,
		`upload ` + b.in("commands") + ` /tmp/commands`,
		`chroot "$1" sh -e /tmp/commands`,
		`rm "$1/tmp/commands"`,
	}
	if b.recipe.Version != "" {
		hooks = append(hooks, `chroot "$1" sh -c `+quote(b.recipe.Version)+` > `+quote(b.in("version")))
	}
	return append(hooks,
		`chroot "$1" apt-get -q autoclean`,
		`umount "$1/var/cache/apt/archives"`,
		`rm -rf "$1/etc/apt/apt.conf.d/00build" "$1/etc/apt/auth.conf" "$1"/etc/apt/auth.conf.d/*`,
		`rm -f "$1/etc/resolv.conf" "$1/etc/hostname"; : > "$1/etc/resolv.conf"; echo localhost > "$1/etc/hostname"`,
		`rm -rf "$1"/var/log/apt/* "$1"/var/log/dpkg.log "$1"/var/log/alternatives.log "$1"/var/cache/ldconfig/*`,
		`mkdir -p "$1/home/work" "$1/etc/backend.ai/service-defs"; chown 1000:1000 "$1/home/work"`,
	)
}

// lineRelay passes the builder's lines on and keeps the last of them.
type lineRelay struct {
	progress func(line string)
	line     []byte // begun and not ended
	last     []string
}

// Write implements io.Writer.
func (r *lineRelay) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == '\r': // a bar that draws itself over and over
			r.line = r.line[:0]
		case c != '\n' && len(r.line) < maxBuildLine:
			r.line = append(r.line, c)
		case c == '\n':
			r.end()
		}
	}
	return len(p), nil
}

func (r *lineRelay) end() {
	line := strings.TrimSpace(string(r.line))
	r.line = r.line[:0]
	if line == "" {
		return
	}
	r.progress(line)
	if r.last = append(r.last, line); len(r.last) > keptLines {
		r.last = r.last[1:]
	}
}

// tag is the new image's tag.
func (b *build) tag() (string, error) {
	if b.recipe.Tag != "" {
		return b.recipe.Tag, nil
	}
	tag := b.host.name()
	if b.recipe.Version != "" {
		version, err := os.ReadFile(b.in("version"))
		if err != nil {
			return "", fmt.Errorf("read version of image: %w", err)
		}
		tag = strings.TrimSpace(string(version)) + "-" + tag
	}
	if !recipeTagRE.MatchString(tag) {
		return "", backendai.Errorf(backendai.CodeInvalidParams, "the recipe's version makes %q, which is not a tag", tag)
	}
	return tag, nil
}
