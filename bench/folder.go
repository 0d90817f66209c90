//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// smallSize is the size of each of many files.
	smallSize = 4 << 10
	// perDirectory is how many files a directory has.
	perDirectory = 1000
)

// folder compares folders with plain files on the same disk.
func (b *bench) folder(ctx context.Context) error {
	dir := filepath.Join(b.dir, "folder")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	const name = "bench-folder"
	if err := b.platform.newFolder(ctx, name); err != nil {
		return err
	}
	defer b.platform.dropFolder(context.WithoutCancel(ctx), name)
	release, err := keepMemory()
	if err != nil {
		return err
	}
	return errors.Join(b.bigTransfers(ctx, name, dir), b.smallTransfers(ctx, name, dir), b.fullFolder(ctx), release())
}

func (p *platform) newFolder(ctx context.Context, name string) error {
	p.dropFolder(ctx, name) // of a run that was broken off
	_, err := timed(p.command(ctx, "vfolder", "create", name))
	return err
}

// dropFolder deletes a folder that may not be there.
func (p *platform) dropFolder(ctx context.Context, name string) {
	if p.command(ctx, "vfolder", "delete", name).Run() == nil {
		_ = p.command(ctx, "vfolder", "purge", name).Run() // else it stays in the trash of a temporary server
	}
}

// bigTransfers moves one large file to and from a folder, against a copy that is
// on the disk when it ends.
func (b *bench) bigTransfers(ctx context.Context, name, dir string) error {
	p := b.platform
	source, back := filepath.Join(dir, "big"), filepath.Join(dir, "back")
	if err := errors.Join(writeRandom(source, b.folderSize), os.MkdirAll(back, 0o700)); err != nil {
		return err
	}
	copied := filepath.Join(dir, "copy")
	copying := []string{"sh", "-c", `cp -- "$0" "$1" && sync -- "$1"`, source, copied}
	var up, down, plain, memory series
	for range b.rounds(3) {
		took, err := onDisk(p.exec(ctx, copying...))
		if err != nil {
			return err
		}
		plain.rate(b.folderSize, took)
		if err := os.Remove(copied); err != nil { // what is in memory of it
			return fmt.Errorf("remove copy: %w", err)
		}
		before, err := resident(p.server.Process.Pid)
		if err != nil {
			return err
		}
		if err := forgetPeak(p.server.Process.Pid); err != nil {
			return err
		}
		if took, err = onDisk(p.command(ctx, "vfolder", "upload", "-b", dir, name, source)); err != nil {
			return err
		}
		up.rate(b.folderSize, took)
		if took, err = onDisk(p.command(ctx, "vfolder", "download", "-b", back, name, "big")); err != nil {
			return err
		}
		down.rate(b.folderSize, took)
		after, err := peak(p.server.Process.Pid)
		if err != nil {
			return err
		}
		memory = append(memory, max(0, after-before))
		if _, err := timed(p.exec(ctx, "cmp", source, filepath.Join(back, "big"))); err != nil {
			return err
		}
		if _, err := timed(p.command(ctx, "vfolder", "rm", "-y", name, "big")); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(back, "big")); err != nil {
			return fmt.Errorf("remove copy: %w", err)
		}
	}
	size := mebibytes(float64(b.folderSize))
	b.table.add(row{"folder: upload of a file of " + size, up, megabytes, "cp, fsync", plain, budget{ratioAtLeast, 0.6}})
	b.table.add(row{"folder: download of the same", down, megabytes, "cp, fsync", plain, budget{ratioAtLeast, 0.6}})
	b.table.add(row{"folder: server's memory over idle meanwhile", memory, mebibytes, "", nil, budget{atMost, 64 << 20}})
	return os.Remove(source)
}

// onDisk times a command; what others have written is on the disk before.
func onDisk(cmd *exec.Cmd) (time.Duration, error) {
	unix.Sync()
	return timed(cmd)
}

// reportingOrder is the size of the blocks of free memory that the kernel of a
// virtual machine gives back to its host, as the power of two of its pages.
const reportingOrder = "/sys/module/page_reporting/parameters/page_reporting_order"

// keepMemory has all free memory be the machine's own until release is called.
// A virtual machine gives back to its host what is free for seconds, and whoever
// takes it next waits for it page by page, longer than for the disk.
func keepMemory() (release func() error, err error) {
	before, err := os.ReadFile(reportingOrder)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keep memory: %w", err)
	}
	set := func(order string) error { return os.WriteFile(reportingOrder, []byte(order), 0) }
	if set("11") != nil { // more than there is: nothing goes back; some kernels take no more than there is
		if err := set("10"); err != nil {
			return nil, fmt.Errorf("keep memory: %w", err)
		}
	}
	release = func() error { return set(strings.TrimSpace(string(before))) }
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for free memory: %w", err), release())
	}
	memory, err := unix.Mmap(-1, 0, int(info.Freeram/10*9), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err == nil {
		err = unix.Munmap(memory)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("use free memory: %w", err), release())
	}
	return release, nil
}

// smallTransfers moves many small files to and from a folder, against scp to an
// OpenSSH server on this machine.
func (b *bench) smallTransfers(ctx context.Context, folder, dir string) error {
	p := b.platform
	many := filepath.Join(dir, "many")
	if err := fillRandom(many, b.folderFiles); err != nil {
		return err
	}
	shell := &shellForward{dir: filepath.Join(b.dir, "sshd"), sshd: "/usr/sbin/sshd"}
	if err := shell.prepare(ctx); err != nil {
		return err
	}
	defer shell.close()
	copied, back, backAgain := filepath.Join(dir, "copied"), filepath.Join(dir, "back"), filepath.Join(dir, "back-again")
	remote := func(path string) string { return "root@127.0.0.1:" + path }
	var up, down, upPlain, downPlain series
	// Each round has names of its own, and nothing is deleted before the end: ext4
	// is slow for minutes where many files were.
	for i := range b.rounds(3) {
		round := strconv.Itoa(i)
		name, copied, back, backAgain := "many-"+round, filepath.Join(copied, round), filepath.Join(back, round), filepath.Join(backAgain, round)
		source := filepath.Join(dir, name)
		if err := errors.Join(os.Rename(many, source), os.MkdirAll(filepath.Dir(copied), 0o700), os.MkdirAll(back, 0o700), os.MkdirAll(backAgain, 0o700)); err != nil {
			return fmt.Errorf("make folders: %w", err)
		}
		for _, try := range []struct {
			to  *series
			cmd *exec.Cmd
		}{
			{&up, p.command(ctx, "vfolder", "upload", "-r", "-b", dir, folder, source)},
			{&upPlain, shell.copy(ctx, p, source, remote(copied))},
			{&down, p.command(ctx, "vfolder", "download", "-b", back, folder, name)},
			{&downPlain, shell.copy(ctx, p, remote(copied), backAgain)},
		} {
			took, err := onDisk(try.cmd)
			if err != nil {
				return err
			}
			try.to.add(took)
		}
		if _, err := timed(p.exec(ctx, "diff", "-r", source, filepath.Join(back, name))); err != nil {
			return err
		}
		if err := os.Rename(source, many); err != nil {
			return fmt.Errorf("rename folder: %w", err)
		}
	}
	what := fmt.Sprintf("%d files of %s", b.folderFiles, mebibytes(smallSize))
	b.table.add(row{"folder: upload of " + what, up, milliseconds, "scp -r", upPlain, budget{ratioAtMost, 0.2}})
	b.table.add(row{"folder: download of the same", down, milliseconds, "scp -r", downPlain, budget{ratioAtMost, 0.2}})
	return nil
}

// fullFolder starts sessions with and without a folder of very many files.
func (b *bench) fullFolder(ctx context.Context) error {
	const name, filler = "bench-full", "bench-filler"
	p := b.platform
	if err := p.newFolder(ctx, name); err != nil {
		return err
	}
	defer p.dropFolder(context.WithoutCancel(ctx), name)
	if _, err := p.session(ctx, filler, "-r", "cpu=2", "-r", "mem=4g", "-m", name); err != nil {
		return err
	}
	if err := b.install(ctx, filler); err != nil {
		return err
	}
	if _, err := timed(p.command(ctx, "ssh", filler, fmt.Sprintf("./bench fill %s/files %d", name, 10*b.folderFiles))); err != nil {
		return err
	}
	if err := p.remove(ctx, filler); err != nil {
		return err
	}
	var with, without series
	for i := range b.rounds(20) {
		session := fmt.Sprintf("bench-full-%d", i)
		tries := []struct {
			to      *series
			options []string
		}{{&with, []string{"-m", name}}, {&without, nil}}
		if i%2 == 1 { // what comes second may find the machine otherwise
			slices.Reverse(tries)
		}
		for _, try := range tries {
			took, err := p.session(ctx, session, try.options...)
			if err != nil {
				return err
			}
			try.to.add(took)
			if err := errors.Join(p.remove(ctx, session), pause(ctx, 100*time.Millisecond)); err != nil {
				return err
			}
		}
	}
	b.table.add(row{fmt.Sprintf("start with a folder of %d files", 10*b.folderFiles), with, milliseconds, "without", without, budget{ratioAtMost, 1.05}})
	return nil
}

// fill makes empty files: "fill DIR NUMBER".
func fill(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: fill DIR NUMBER")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return makeFiles(args[0], n, nil)
}

// fillRandom makes small files whose content differs.
func fillRandom(dir string, n int) error {
	content := make([]byte, smallSize)
	return makeFiles(dir, n, func() ([]byte, error) {
		_, err := rand.Read(content)
		return content, err
	})
}

// makeFiles makes files in directories of 1000.
func makeFiles(dir string, n int, content func() ([]byte, error)) error {
	var below string
	for i := range n {
		if i%perDirectory == 0 {
			below = filepath.Join(dir, strconv.Itoa(i/perDirectory))
			if err := os.MkdirAll(below, 0o755); err != nil {
				return fmt.Errorf("make files: %w", err)
			}
		}
		var data []byte
		if content != nil {
			var err error
			if data, err = content(); err != nil {
				return fmt.Errorf("make files: %w", err)
			}
		}
		if err := os.WriteFile(filepath.Join(below, strconv.Itoa(i)), data, 0o644); err != nil {
			return fmt.Errorf("make files: %w", err)
		}
	}
	return nil
}

// writeRandom makes one large file.
func writeRandom(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	_, err = io.CopyN(f, rand.Reader, size)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	return nil
}

// forgetPeak makes peak count from now on.
func forgetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("forget peak of memory: %w", err)
	}
	return nil
}

// peak is the most resident memory that a process has had, in bytes.
func peak(pid int) (float64, error) { return memoryField(pid, "VmHWM") }
