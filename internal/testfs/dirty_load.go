//go:build linux

package testfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// create makes a file of n bytes below dir and returns it open; the last bytes
// differ from file to file.
func create(dir, name string, n int, fsync bool) (int, error) {
	fd, err := unix.Open(filepath.Join(dir, name), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, fmt.Errorf("create %s: %w", name, err)
	}
	data := bytes.Repeat([]byte(name+"\n"), n/(len(name)+1)+1)[:n]
	if _, err := unix.Pwrite(fd, data, 0); err != nil {
		return fd, fmt.Errorf("write %s: %w", name, err)
	}
	if fsync {
		err = unix.Fsync(fd)
	}
	return fd, err
}

// createAll makes files of n bytes and fsyncs each step-th.
func createAll(dir, format string, count, n, step int) error {
	for i := range count {
		fd, err := create(dir, fmt.Sprintf(format, i), n, i%step == 0)
		if fd >= 0 {
			unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func fsyncDir(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// mixedLoad leaves several committed transactions and a running one.
func mixedLoad(dir string, _ func(int)) error {
	w, err := newLoad(dir, 42)
	if err != nil {
		return err
	}
	if err := w.bigDir("big", 300); err != nil {
		return err
	}
	for range 5 {
		if err := w.mixed(100); err != nil {
			return err
		}
		if err := fsyncDir(dir); err != nil {
			return err
		}
	}
	return w.mixed(30)
}

// baseLoad is small and ends committed.
func baseLoad(dir string, _ func(int)) error {
	if err := createAll(dir, "base%d", 20, 30000, 5); err != nil {
		return err
	}
	if err := createAll(dir, "large%d", 2, 3<<20, 1); err != nil {
		return err
	}
	return fsyncDir(dir)
}

func syncedLoad(dir string, keep func(int)) error {
	if err := mixedLoad(dir, keep); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// escapedLoad journals data blocks that begin as the journal's own do.
func escapedLoad(dir string, _ func(int)) error {
	block := bytes.Repeat([]byte("escaped "), 512)
	binary.BigEndian.PutUint32(block, 0xc03b3998)
	for i := range 10 {
		fd, err := create(dir, fmt.Sprintf("escaped%d", i), 100, false)
		if err != nil {
			return err
		}
		for b := range 5 {
			if _, err := unix.Pwrite(fd, block, int64(b*len(block))); err != nil {
				return err
			}
		}
		if err := unix.Fsync(fd); err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}

// fastCommitLoad does what a fast commit can hold, each change fsynced.
func fastCommitLoad(dir string, _ func(int)) error {
	if err := createAll(dir, "old%d", 10, 20000, 100); err != nil {
		return err
	}
	if err := unix.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		return err
	}
	// A full commit: what follows is in fast commits.
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Syncfs(fd)
	unix.Close(fd)
	if err != nil {
		return err
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	// change applies f to an open file and fsyncs it.
	change := func(name string, f func(fd int) error) error {
		fd, err := unix.Open(p(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := f(fd); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return unix.Fsync(fd)
	}
	write := func(off int64, n int) func(int) error {
		return func(fd int) error {
			_, err := unix.Pwrite(fd, bytes.Repeat([]byte{'w'}, n), off)
			return err
		}
	}
	nothing := func(int) error { return nil }
	steps := []func() error{
		func() error { return createAll(dir, "new%d", 6, 5000, 1) },
		func() error { return change("old0", write(20000, 9000)) },
		func() error { return change("old1", write(300000, 5000)) },
		func() error { return change("old2", func(fd int) error { return unix.Ftruncate(fd, 3000) }) },
		func() error {
			return change("old3", func(fd int) error {
				return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 8192)
			})
		},
		func() error {
			return change("old4", func(fd int) error { return unix.Fallocate(fd, 0, 20000, 100000) })
		},
		func() error { return unix.Link(p("old5"), p("linked5")) },
		func() error { return change("old5", write(0, 10)) },
		func() error { return unix.Rename(p("new1"), p("renamed1")) },
		func() error { return change("renamed1", write(5000, 10)) },
		func() error { return unix.Unlink(p("old6")) },
		func() error { return change("new2", write(0, 100)) },
		func() error { return unix.Rename(p("new3"), p("sub/moved3")) },
		func() error { return change("sub/moved3", write(1, 1)) },
		func() error { return unix.Symlink("target", p("symlink")) },
		func() error { return unix.Mkdir(p("newdir"), 0o700) },
		func() error { return createAll(p("newdir"), "in%d", 3, 100, 1) },
		func() error { return change("new4", func(fd int) error { return unix.Fchmod(fd, 0o600) }) },
		func() error { return unix.Rename(p("old7"), p("old8")) },
		func() error { return change("old8", nothing) },
		func() error { return change("new5", write(100000, 1)) },
		// Not fsynced: may come or not.
		func() error { return createAll(dir, "lost%d", 3, 5000, 100) },
	}
	for i, s := range steps {
		if err := s(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// orphanLoad leaves files open that have no name, small, large and sparse, and
// folders likewise.
func orphanLoad(dir string, keep func(int)) error {
	if err := createAll(dir, "stays%d", 10, 5000, 5); err != nil {
		return err
	}
	for i := range 12 {
		name := fmt.Sprintf("orphan%d", i)
		fd, err := create(dir, name, []int{0, 50, 9000, 700000}[i%4], false)
		if err != nil {
			return err
		}
		keep(fd)
		if i%3 == 0 {
			if _, err := unix.Pwrite(fd, []byte("far"), 9<<20); err != nil {
				return err
			}
		}
		if err := unix.Fsync(fd); err != nil {
			return err
		}
		if err := unix.Unlink(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	sub := filepath.Join(dir, "orphandir")
	if err := unix.Mkdir(sub, 0o755); err != nil {
		return err
	}
	fd, err := unix.Open(sub, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	keep(fd)
	if err := unix.Rmdir(sub); err != nil {
		return err
	}
	tmp, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	keep(tmp)
	if _, err := unix.Pwrite(tmp, make([]byte, 100000), 0); err != nil {
		return err
	}
	if err := unix.Fsync(tmp); err != nil {
		return err
	}
	return fsyncDir(dir)
}

// revokeLoad frees blocks of folders and has data written where they were,
// while the log still holds the old contents.
func revokeLoad(dir string, _ func(int)) error {
	for round := range 4 {
		sub := filepath.Join(dir, fmt.Sprintf("dir%d", round))
		if err := unix.Mkdir(sub, 0o755); err != nil {
			return err
		}
		name := strings.Repeat("long", 40) + "%d"
		if err := createAll(sub, name, 300, 0, 1000); err != nil {
			return err
		}
		if err := fsyncDir(sub); err != nil {
			return err
		}
		if err := os.RemoveAll(sub); err != nil {
			return err
		}
		if err := fsyncDir(dir); err != nil {
			return err
		}
		if err := createAll(dir, fmt.Sprintf("reuse%d-%%d", round), 20, 60000, 1); err != nil {
			return err
		}
	}
	return nil
}

// dataRevokeLoad frees journaled data blocks of files (chattr +j) and has
// unjournaled data written where they were.
func dataRevokeLoad(dir string, _ func(int)) error {
	if err := createAll(dir, "journaled%d", 20, 40000, 1); err != nil {
		return err
	}
	for i := 0; i < 20; i += 2 {
		if err := unix.Unlink(filepath.Join(dir, fmt.Sprintf("journaled%d", i))); err != nil {
			return err
		}
	}
	if err := fsyncDir(dir); err != nil {
		return err
	}
	return createAll(dir, "reuse%d", 10, 70000, 1)
}

// wrapLoad writes more than a small journal holds.
func wrapLoad(dir string, _ func(int)) error {
	for i := range 12 {
		sub := filepath.Join(dir, fmt.Sprintf("dir%d", i))
		if err := unix.Mkdir(sub, 0o755); err != nil {
			return err
		}
		if err := createAll(sub, "file%d", 60, 1500, 3); err != nil {
			return err
		}
	}
	return nil
}
