package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"backendai/internal/client"
	"backendai/internal/config"
	"backendai/internal/engine/oci"
	"backendai/internal/server"
)

// serverFile is the configuration file that is read, if it is there, when no
// other is named.
const serverFile = "/etc/backend.ai/server.toml"

const serverHelp = `Runs the server: the API, the sessions and their images, in one process in the foreground. Everything is stored below its state directory; no other service is needed. It prints one line that begins with "ready" when it answers.

The first start makes an administrator, writes its keys to admin.env in the state directory, and writes the client profile of the same user, so that 'backend.ai start' works at once. A profile for another server is never overwritten; then run '. STATE-DIR/admin.env' in your shell first.

Sessions do not depend on the server process: when it ends, by a signal or a crash, they go on, and the next start on the same state directory takes them over. Ctrl+C or SIGTERM ends the server; open tunnels are cut. Several servers can run on one machine, each with a state directory and an address of its own.

The native engine (oci) needs Linux, root, and crun or runc.

Each setting is taken from the first of: the option; the environment variable with BACKEND_SERVER_ before the option's name in upper case with underscores (BACKEND_SERVER_STATE_DIR); the TOML file named by --config, else ` + serverFile + ` if it is there; the default. In the file the keys are the names of the options, and an unknown key is an error. 'backend.ai server config' shows every value and where it comes from.`

// newServerCommand is "backend.ai server".
func newServerCommand(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the server",
		Long:  serverHelp,
		Args:  arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadServerConfig(e, cmd.Flags(), file)
			if err != nil {
				return err
			}
			return runServer(cmd.Context(), e, cfg)
		},
	}
	flags := cmd.PersistentFlags()
	flags.SortFlags = false
	flags.StringVar(&file, "config", "", "TOML `FILE` with settings (default "+serverFile+" if it is there)")
	for _, k := range config.Keys() {
		flags.String(k.Name, "", serverUsage(k))
	}
	cmd.AddCommand(newServerConfigCommand(e, &file))
	return document(cmd, manual{examples: [][2]string{
		{"An own server for trying things out", "backend.ai server --state-dir ~/backend.ai --listen 127.0.0.1:8090"},
		{"Open to the network, over TLS", "backend.ai server --listen 0.0.0.0:8443 --tls-cert fullchain.pem --tls-key key.pem"},
		{"Leave half of the machine to others", "backend.ai server --cpu 4 --mem 16g"},
	}})
}

// serverUsage tells the default too, without the folder of whoever prints the help.
func serverUsage(k config.Key) string {
	switch d := k.Default(); {
	case k.Name == "state-dir":
		return k.Usage + " (default /var/lib/backend.ai for root, else below ~/.local/state)"
	case d == "":
		return k.Usage
	default:
		return k.Usage + " (default " + d + ")"
	}
}

func loadServerConfig(e *env, flags *pflag.FlagSet, file string) (*config.Config, error) {
	given := map[string]string{}
	for _, k := range config.Keys() {
		if f := flags.Lookup(k.Name); f != nil && f.Changed {
			given[k.Name] = f.Value.String()
		}
	}
	for _, name := range []string{"state-dir", "run-dir"} {
		if dir, ok := given[name]; ok && dir != "" { // the shell knows where it is, a file does not
			abs, err := filepath.Abs(dir)
			if err != nil {
				return nil, fmt.Errorf("find folder %q: %w", dir, err)
			}
			given[name] = abs
		}
	}
	if file == "" {
		if _, err := os.Stat(serverFile); err == nil {
			file = serverFile
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return config.Load(config.Source{Flags: given, Env: e.getenv, File: file})
}

func runServer(ctx context.Context, e *env, cfg *config.Config) error {
	if cfg.Engine == config.EngineOCI {
		// Executes this program again; what follows runs in the second life.
		if err := oci.Isolate(); err != nil {
			return err
		}
	}
	s, err := server.New(ctx, cfg, serverLogger(e.errs, cfg))
	if err != nil {
		return err
	}
	path, err := client.ProfilePath(e.getenv)
	ours := false
	if err == nil {
		ours, err = s.WriteProfile(path)
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	use := "backend.ai ps"
	if !ours {
		use = ". " + filepath.Join(cfg.StateDir, server.AdminFile)
	}
	fmt.Fprintf(e.out, "ready: %s (state in %s); try: %s\n", s.Endpoint(), cfg.StateDir, use)
	return s.Run(ctx)
}

func serverLogger(to io.Writer, cfg *config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.Level()}
	if strings.EqualFold(cfg.LogFormat, "json") {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}
