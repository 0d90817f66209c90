package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"backendai/internal/account"
	"backendai/internal/api"
	"backendai/internal/config"
	"backendai/internal/dotfile"
	"backendai/internal/engine"
	"backendai/internal/engine/fake"
	"backendai/internal/engine/oci"
	"backendai/internal/image"
	"backendai/internal/session"
	"backendai/internal/store"
	"backendai/internal/vfolder"
)

// The folders in the state directory.
const (
	imagesDir = "images"
	engineDir = "engine"
	logsDir   = "logs" // of sessions that have ended
)

// packagesDir keeps the packages that image builds download: all servers on a
// machine share it.
const packagesDir = "/var/cache/backend.ai/packages"

// New takes the state directory and the address, opens all parts, and makes the
// administrator on the first start. A server that is not Run must be closed.
func New(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*Server, error) {
	return newServer(ctx, cfg, logger, openParts)
}

// openParts opens the parts and gives them to each other. What was opened is
// closed in the opposite order.
func openParts(ctx context.Context, cfg *config.Config, logger *slog.Logger) (_ *parts, err error) {
	var closers []func() error
	closeAll := func() (err error) {
		for _, c := range slices.Backward(closers) {
			err = errors.Join(err, c())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	db, err := store.Open(ctx, cfg.StateDir)
	if err != nil {
		return nil, err
	}
	closers = append(closers, db.Close)
	accounts := account.New(db, account.Options{Logger: logger.With("part", "account")})
	closers = append(closers, func() error { accounts.Close(); return nil })
	images, driver, closeEngine, err := openEngine(ctx, cfg, db, logger)
	closers = append(closers, closeEngine...)
	if err != nil {
		return nil, err
	}
	folders, err := openFolders(cfg, db, logger)
	if err != nil {
		return nil, err
	}
	dotfiles := dotfile.New(db, folders.Hidden)
	sessions, err := session.New(session.Options{
		Store: db, Engine: driver, Images: images, Folders: folders, Dotfiles: dotfiles, Derive: db.Derive,
		LogDir: filepath.Join(cfg.StateDir, logsDir), LogRetention: cfg.Retention(), Logger: logger.With("part", "session"),
	})
	if err != nil {
		return nil, err
	}
	return &parts{
		sessions: sessions, accounts: accounts, images: images, folders: folders, dotfiles: dotfiles, capacity: driver.Capacity,
		run: func(ctx context.Context) error {
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error { return sessions.Run(ctx) })
			g.Go(func() error { return folders.Run(ctx) })
			return g.Wait()
		},
		close: closeAll,
	}, nil
}

// openFolders opens the folders on the storage hosts of the configuration.
func openFolders(cfg *config.Config, db *store.Store, logger *slog.Logger) (*vfolder.Service, error) {
	folder, user, count := cfg.Quotas()
	return vfolder.New(vfolder.Options{
		Store: db, Hosts: cfg.Hosts(), DefaultHost: cfg.DefaultHost, Key: db.Derive("storage-token", ""),
		FolderQuota: folder, UserQuota: user, MaxFolders: count, TrashTime: cfg.TrashTime(), Logger: logger.With("part", "vfolder"),
	})
}

// openEngine opens the engine that the configuration names and the images that
// go with it.
func openEngine(ctx context.Context, cfg *config.Config, aliases image.AliasStore, logger *slog.Logger) (
	images api.Images, driver engine.Engine, closers []func() error, err error,
) {
	capacity, err := cfg.Capacity()
	if err != nil {
		return nil, nil, nil, err
	}
	if cfg.Engine == config.EngineFake {
		f, err := fake.New(fake.Options{Dir: filepath.Join(cfg.StateDir, engineDir), Slots: capacity})
		if err != nil {
			return nil, nil, nil, fmt.Errorf("open engine: %w", err)
		}
		return fake.NewImages(), f, []func() error{f.Close}, nil
	}
	kept, err := image.Open(ctx, image.Options{
		Root: filepath.Join(cfg.StateDir, imagesDir), Packages: packagesDir, Aliases: aliases, Public: cfg.PublicImages,
		PlainHTTP: func(host string) bool { return slices.Contains(cfg.InsecureRegistries, host) },
		Logger:    logger.With("part", "image"),
	})
	if err != nil {
		return nil, nil, nil, err
	}
	closers = append(closers, kept.Close)
	e, err := oci.New(ctx, oci.Options{
		StateDir: filepath.Join(cfg.StateDir, engineDir), RunDir: cfg.RunDir, Runtime: cfg.Runtime, Images: kept,
		Capacity: capacity, Network: cfg.Network, Logger: logger.With("part", "engine"),
	})
	if err != nil {
		return nil, nil, closers, err
	}
	return kept, e, append(closers, e.Close), nil
}
