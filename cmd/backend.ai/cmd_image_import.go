package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/spf13/cobra"

	"backendai/internal/client"
)

// newImageImportCommand is "image import".
func newImageImportCommand(e *env) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Send an image archive to the server's machine", Args: arguments("FILE"),
		Long: "Sends an image archive to the server, which keeps the images that are in it: an OCI archive, the output of 'docker save', or a folder with an OCI layout. It may be compressed.",
		RunE: func(cmd *cobra.Command, args []string) error {
			archive, err := openArchive(args[0], cmd.InOrStdin())
			if err != nil {
				return usageError{err}
			}
			defer archive.Close()
			return e.importImage(cmd.Context(), args[0], archive, name)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`REFERENCE` (registry/name:tag) for the image of an archive with one image; without it the name that is in the archive")
	return document(cmd, manual{
		arguments: [][2]string{{"FILE", "archive or folder; - reads an archive from standard input"}},
		examples: [][2]string{
			{"From a file", "backend.ai image import python.tar.gz"},
			{"From Docker on this machine", "docker save my/image:1 | backend.ai image import -"},
			{"A folder under another name", "backend.ai image import layout/ --name localhost/tools:1"},
		},
	})
}

// archive is an image archive on its way: its bytes and how many there will be, 0 when that is not known.
type archive struct {
	io.ReadCloser

	size int64
}

// openArchive opens what FILE names. The caller closes it.
func openArchive(name string, in io.Reader) (archive, error) {
	if name == "-" {
		return archive{ReadCloser: io.NopCloser(in)}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return archive{}, err
	}
	if info.IsDir() {
		return packLayout(name)
	}
	f, err := os.Open(name)
	if err != nil {
		return archive{}, err
	}
	size := info.Size()
	if !info.Mode().IsRegular() {
		size = 0
	}
	return archive{f, size}, nil
}

// packLayout makes a tar stream of a folder with an OCI layout.
func packLayout(name string) (archive, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return archive{}, err
	}
	if _, err := root.Stat("oci-layout"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("the folder %q is no OCI layout: it has no file oci-layout", name)
		}
		return archive{}, errors.Join(err, root.Close())
	}
	const block = 512
	size := int64(block) // one block less at the top, two more at the end
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		size += block
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err == nil {
			size += (info.Size() + block - 1) / block * block
		}
		return err
	})
	if err != nil {
		return archive{}, errors.Join(err, root.Close())
	}
	out, in := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w := tar.NewWriter(in)
		err := w.AddFS(root.FS())
		if err == nil {
			err = w.Close()
		}
		in.CloseWithError(errors.Join(err, root.Close()))
	}()
	return archive{&pipeEnd{out, ended}, size}, nil
}

// pipeEnd is the reading end of a pipe; its Close waits for the writer.
type pipeEnd struct {
	*io.PipeReader

	ended <-chan struct{}
}

// Close implements io.Closer.
func (p *pipeEnd) Close() error {
	err := p.PipeReader.Close()
	<-p.ended
	return err
}

// importImage sends an archive. While it is sent, how much of it is gone counts;
// then what the server does with it.
func (e *env) importImage(ctx context.Context, file string, from archive, name string) error {
	return e.imageWork(ctx, func(ctx context.Context, c *client.Client, step func(client.ImageStep)) ([]client.Image, error) {
		bar := e.term.Progress()
		var total int64
		var sent atomic.Bool // the whole archive is
		body := &counter{Reader: from, seen: func(n int64, err error) {
			total += n
			bar.Set("sending "+file, total, from.size)
			sent.Store(err != nil)
		}}
		images, err := c.ImportImage(ctx, body, name, func(s client.ImageStep) {
			if sent.Load() {
				bar.Close()
				step(s)
			}
		})
		bar.Close()
		return images, err
	})
}
