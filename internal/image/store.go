// Package image keeps the images that sessions are made of: it resolves names,
// pulls from registries, imports archives, builds from recipes, unpacks layers
// and hands them out to sessions.
//
// Storage is containerd's, embedded: a content store, metadata with leases and
// garbage collection in bbolt, and the overlay snapshotter, which here only
// unpacks; sessions mount their overlays themselves from what Layers gives.
// Layer archives are dropped as soon as they are unpacked.
//
// # Names
//
// Every image has a canonical reference registry/repository:tag. Those that
// this machine builds are in the registry "localhost", which is never asked
// over the network: localhost/python:3.11-debian12. Users may write less:
// Resolve tries, in this order, an alias, the exact reference, a short name
// among the present images (python, python:3.11), the short names of the
// configuration, and last a full reference that a registry could have.
//
// # What keeps an image
//
// A name keeps its image, and so does a session that uses it: removing a name,
// or pulling another image under it, leaves the layers until the last session
// has released them. Everything else is garbage and goes at once.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	imagestore "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/semaphore"

	"backendai"
	"backendai/images"
)

// AliasStore keeps the administrators' names for images, by alias.
type AliasStore interface {
	Aliases(ctx context.Context) (map[string]string, error)
	// SetAlias makes or changes an alias.
	SetAlias(ctx context.Context, alias, target string) error
	// DeleteAlias fails with CodeNotFound when there is no such alias.
	DeleteAlias(ctx context.Context, alias string) error
}

// DefaultMaxUnpacked is the most bytes that one image may unpack to, unless
// Options say otherwise.
const DefaultMaxUnpacked = 64 << 30

// Options say where images are and where they come from.
type Options struct {
	Root    string     // absolute folder that this store alone uses; made when absent
	Aliases AliasStore // read when the store opens; from then on changed only through it
	// Public maps short names to references that a registry has.
	Public  map[string]string
	Recipes fs.FS // <name>.toml files for Build; nil is the stock images
	// Packages is the folder of downloaded packages, which stores on a machine
	// may share; "" is one below Root.
	Packages string
	Logger   *slog.Logger // nil discards
	// MaxUnpacked bounds the unpacked size of one image in bytes; 0 is DefaultMaxUnpacked.
	MaxUnpacked int64
	// PlainHTTP tells which registry hosts are spoken to without TLS; nil is none.
	PlainHTTP func(host string) bool
	// Credentials gives the name and secret for a registry host, empty for none; nil is none.
	Credentials func(host string) (user, secret string, err error)
	// Transport carries the requests to registries; nil is one with time limits and the proxies of the environment.
	Transport http.RoundTripper
}

// Store is the images of this machine. It is safe for concurrent use; only one
// process at a time can have a root open.
type Store struct {
	opts    Options
	log     *slog.Logger
	arch    string // the protocol's name of this machine's architecture
	db      *metadata.DB
	content content.Store
	names   imagestore.Store
	leases  leases.Manager
	snaps   snapshots.Snapshotter
	owners  *os.Root

	unpacking *semaphore.Weighted // one image unpacks at a time: the disk is the limit
	ctx       context.Context     // ends with Close; parent of what several callers wait for
	cancel    context.CancelFunc
	running   sync.WaitGroup // flights
	closing   sync.Once
	closed    error // of the one close

	mu      sync.RWMutex
	catalog catalog
	flights map[string]*flight

	changes sync.Mutex // held while names, leases or owners change, so that a decision on what to keep stays true; before mu
}

const (
	namespace       = "backend.ai"
	snapshotterName = "overlayfs"
	openTimeout     = 2 * time.Second
)

// Open opens or makes the store below opts.Root and clears what a crash left.
// The caller closes it.
func Open(ctx context.Context, opts Options) (_ *Store, err error) {
	if !filepath.IsAbs(opts.Root) {
		return nil, fmt.Errorf("open image store %q: the path is not absolute", opts.Root)
	}
	if opts.Aliases == nil {
		return nil, errors.New("open image store: there is no store for aliases")
	}
	if opts.MaxUnpacked <= 0 {
		opts.MaxUnpacked = DefaultMaxUnpacked
	}
	if opts.Packages == "" {
		opts.Packages = filepath.Join(opts.Root, "packages")
	}
	if opts.Recipes == nil {
		opts.Recipes = images.Recipes()
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		opts: opts, log: opts.Logger, arch: protocolArch(runtime.GOARCH),
		unpacking: semaphore.NewWeighted(1), flights: map[string]*flight{},
	}
	log.L.Logger.SetOutput(io.Discard) // some containerd code logs without a context, to standard error
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.openFiles(ctx); err != nil {
		return nil, fmt.Errorf("open image store %q: %w", opts.Root, err)
	}
	if err := s.recover(s.inside(ctx)); err != nil {
		return nil, fmt.Errorf("open image store %q: %w", opts.Root, err)
	}
	return s, nil
}

func (s *Store) openFiles(ctx context.Context) error {
	root := s.opts.Root
	for _, dir := range []string{root, filepath.Join(root, "owners"), filepath.Join(root, "build")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var err error
	if s.owners, err = os.OpenRoot(filepath.Join(root, "owners")); err != nil {
		return err
	}
	files, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		return err
	}
	bdb, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, &bolt.Options{Timeout: openTimeout})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return backendai.Errorf(backendai.CodeUnavailable, "another process has the image store %q open", root).
			WithHint("images are managed through the running server")
	}
	if err != nil {
		return err
	}
	snaps, err := newSnapshotter(filepath.Join(root, "snapshots"))
	if err != nil {
		return errors.Join(err, bdb.Close())
	}
	s.db = metadata.NewDB(bdb, files, map[string]snapshots.Snapshotter{snapshotterName: snaps})
	if err := s.db.Init(s.inside(ctx)); err != nil {
		return errors.Join(err, snaps.Close())
	}
	s.content = s.db.ContentStore()
	s.names = metadata.NewImageStore(s.db)
	s.leases = metadata.NewLeaseManager(s.db)
	s.snaps = s.db.Snapshotter(snapshotterName)
	return nil
}

// Close stops downloads, waits for them, and closes the files. Closing again
// does nothing.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *Store) close() error {
	s.cancel()
	s.running.Wait()
	var errs []error
	if s.snaps != nil {
		errs = append(errs, s.snaps.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.owners != nil {
		errs = append(errs, s.owners.Close())
	}
	return errors.Join(errs...)
}

// silent takes what the containerd packages log for themselves: what matters of
// it comes back as errors.
var silent = logrus.NewEntry(&logrus.Logger{Out: io.Discard, Formatter: new(logrus.TextFormatter), Level: logrus.PanicLevel})

// inside prepares a context for the containerd packages.
func (s *Store) inside(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, namespace), silent)
}
