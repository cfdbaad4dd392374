package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	ballast      = "ballast"
	unmountAfter = 5 * time.Second
)

// Disk is a small file system of its own: ext4 in a file where the kernel lends a loop device, else a tmpfs. Nothing of
// it is kept back for root.
type Disk struct {
	dir   string
	image string // of the ext4; gone as soon as it is mounted, and freed with it

	mu     sync.Mutex
	warden *warden
}

// NewDisk makes a file system of size bytes and mounts it at dir, which is created. Some of it is taken by the file system itself.
func NewDisk(ctx context.Context, dir string, size int64) (*Disk, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("make a disk: only root may mount a file system")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	if err := openToAll(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a disk: %w", err)
	}
	d := &Disk{dir: dir, image: dir + ".img"}
	if err := d.mount(ctx, size); err != nil {
		return nil, errors.Join(fmt.Errorf("make a disk: %w", err), d.Close())
	}
	return d, nil
}

// openToAll refuses a folder that the servers' user cannot pass through: a server would be kept elsewhere, and not on the disk.
func openToAll(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("PostgreSQL's user cannot pass through %s", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (d *Disk) mount(ctx context.Context, size int64) error {
	var err error
	if d.warden, err = startWarden(unmounting, d.dir); err != nil {
		return err
	}
	loop := d.mountLoop(ctx, size)
	if loop != nil {
		if err := run(ctx, "mount", "-t", "tmpfs", "-o", "mode=0755,size="+strconv.FormatInt(size, 10), "tmpfs", d.dir); err != nil {
			return errors.Join(loop, err)
		}
	}
	return os.Chmod(d.dir, 0o755)
}

func (d *Disk) mountLoop(ctx context.Context, size int64) error {
	f, err := os.OpenFile(d.image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// The loop device holds the file open; without a name it ends with the mount, in every way that can end.
	defer func() { _ = os.Remove(d.image) }()
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	// Without a journal all of a small disk is there for data; a crash of the machine is none of the faults here.
	if err := run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", d.image); err != nil {
		return err
	}
	return run(ctx, "mount", "-t", "ext4", "-o", "loop,noatime", d.image, d.dir)
}

// Dir is where it is mounted.
func (d *Disk) Dir() string { return d.dir }

// Fill leaves nothing free. What a process frees after that is free again.
func (d *Disk) Fill(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(d.dir, ballast), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill %s: %w", d.dir, err)
	}
	defer func() { _ = f.Close() }()
	// Large pieces for speed, and small ones for the rest, until even one byte is refused.
	for _, size := range []int{1 << 20, 64 << 10, 4 << 10, 1} {
		piece := bytes.Repeat([]byte{0xA5}, size)
		for {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("fill %s: %w", d.dir, err)
			}
			_, err := f.Write(piece)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				return fmt.Errorf("fill %s: %w", d.dir, err)
			}
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill %s: %w", d.dir, err)
	}
	return nil
}

// Free gives back what Fill took.
func (d *Disk) Free() error {
	if err := os.Remove(filepath.Join(d.dir, ballast)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("free %s: %w", d.dir, err)
	}
	return nil
}

// Close unmounts it and removes the folder; what was on it is gone. A server that still runs on it is an error, and loses it
// all the same. Closing it again does nothing.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.unmount()
	if remove := os.Remove(d.dir); remove != nil && !errors.Is(remove, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("remove the disk: %w", remove))
	}
	d.warden.dismiss()
	return err
}

// unmount asks the kernel and not a note of ours: a mount command that was interrupted may have done its work.
func (d *Disk) unmount() error {
	ctx, cancel := context.WithTimeout(context.Background(), unmountAfter)
	defer cancel()
	busy := until(ctx, func() (bool, error) {
		err := syscall.Unmount(d.dir, 0)
		return nothingMounted(err), err
	})
	if busy == nil {
		return nil
	}
	if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil && !nothingMounted(err) {
		busy = errors.Join(busy, err)
	}
	return fmt.Errorf("unmount %s: %w", d.dir, busy)
}

func nothingMounted(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT)
}

// run runs a command to its end; its output becomes part of the error.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
