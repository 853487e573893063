package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/ext2fs"
)

// hostMode returns the permissions of a file out there, those bits included
// that package os keeps apart.
func hostMode(st os.FileInfo) uint32 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Mode & 0o7777
	}
	return uint32(st.Mode().Perm())
}

// nextData returns where a file out there has data from off on, and where that
// ends; size and size if nowhere.
func nextData(src *os.File, off, size int64) (data, end int64, err error) {
	data, err = unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL): // the file system there does not tell
		data = off
	case err != nil:
		return 0, 0, fmt.Errorf("seek: %w", err)
	}
	if end, err = unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE); err != nil {
		end = size
	}
	return data, end, nil
}

// copyXattrs copies the extended attributes of a file out there, as far as that
// file system has any.
func copyXattrs(ip *ext2fs.Inode, src *os.File) error {
	fd := int(src.Fd())
	n, err := unix.Flistxattr(fd, nil)
	if n == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	list := make([]byte, n+1024)
	if n, err = unix.Flistxattr(fd, list); err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	value := make([]byte, 1<<16) // the largest there is
	for _, name := range splitZero(list[:n]) {
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err == nil {
			err = ip.Setxattr(name, value[:n], 0, false)
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

func splitZero(b []byte) (out []string) {
	for len(b) > 0 {
		i := 0
		for i < len(b) && b[i] != 0 {
			i++
		}
		out = append(out, string(b[:i]))
		b = b[min(i+1, len(b)):]
	}
	return out
}
