package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"backendai"
	"backendai/internal/client"
)

// newVFolderCreateCommand is "vfolder create".
func newVFolderCreateCommand(e *env) *cobra.Command {
	var r client.FolderRequest
	cmd := &cobra.Command{
		Use: "create NAME [HOST]", Short: "Make a folder", Args: arguments("NAME", "[HOST]"),
		Long: "Makes an empty folder. One whose name begins with a dot mounts by itself in all your sessions: keys for SSH in .ssh, Python packages in .local, and so on.",
		RunE: e.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := backendai.ValidateFolderName(args[0]); err != nil {
				return usageError{err: err}
			}
			r.Name = args[0]
			if len(args) > 1 {
				r.Host = args[1]
			}
			f, err := c.CreateFolder(ctx, r)
			if err != nil {
				return err
			}
			return e.say(map[string]any{"name": f.Name, "id": f.ID, "host": f.Host}, "Virtual folder %q is created.", f.Name)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&r.Group, "group", "g", "", "`NAME` of the project that the folder shall belong to; for administrators; without it the folder is your own")
	folderFlags(f, &r)
	f.StringVarP(&r.Quota, "quota", "q", "", "`SIZE` that the folder may hold, such as 10g; without it what the server allows")
	return document(cmd, manual{
		arguments: [][2]string{
			{"NAME", "name of the folder: up to 64 letters, digits, dots, dashes and underscores; it may begin with a dot"},
			{"HOST", "name of the storage host to keep it on; without it the server's default"},
		},
		examples: [][2]string{{"Keys that every session accepts", "backend.ai vfolder create .ssh\nbackend.ai vfolder upload .ssh authorized_keys"}, {"Data for several sessions", "backend.ai vfolder create data"}},
	})
}

// folderFlags adds the options of new folders.
func folderFlags(f *pflag.FlagSet, r *client.FolderRequest) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "allow-clone" {
			name = "cloneable"
		}
		return pflag.NormalizedName(name)
	})
	f.VarP(&choice{&r.UsageMode, []string{"general", "model", "data"}}, "usage-mode", "m", "`MODE`: what the folder is for: general, model or data")
	f.VarP(&choice{&r.Permission, []string{"ro", "rw", "wd"}}, "permission", "p", "`PERMISSION`: the most that anyone has in the folder: ro, rw or wd")
	f.BoolVar(&r.Cloneable, "cloneable", false, "allow those who have the folder to copy it (also --allow-clone)")
	r.UsageMode, r.Permission = "general", "rw"
	for _, name := range []string{"usage-mode", "permission"} {
		f.Lookup(name).DefValue = f.Lookup(name).Value.String()
	}
}

// choice is the value of an option that is one of some words.
type choice struct {
	value *string
	words []string
}

// String implements pflag.Value.
func (c *choice) String() string { return *c.value }

// Type implements pflag.Value.
func (c *choice) Type() string { return "string" }

// Set implements pflag.Value.
func (c *choice) Set(text string) error {
	if !slices.Contains(c.words, text) {
		return usagef("it is none of %v", c.words)
	}
	*c.value = text
	return nil
}
