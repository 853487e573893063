package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// openDevice opens a device or image for reading: by its path, of which
// ?offset=BYTES may follow where the file system starts, or as LABEL=NAME or
// UUID=UUID of a block device.
func openDevice(name string) (blockdev.Device, error) {
	o := blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff}
	path := name
	if key, value, ok := strings.Cut(name, "="); ok && (key == "LABEL" || key == "UUID") {
		if path = findDevice(key, value); path == "" {
			return nil, fmt.Errorf("no block device has it: %w", syscall.ENOENT)
		}
	} else if p, opts, ok := strings.Cut(name, "?"); ok {
		path = p
		for _, opt := range strings.Split(opts, "&") {
			key, value, _ := strings.Cut(opt, "=")
			n, err := parseNumber(value, 63)
			if key != "offset" || err != nil {
				return nil, fmt.Errorf("option %s: there is offset=BYTES: %w", opt, syscall.EINVAL)
			}
			o.Offset = int64(n)
		}
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil, syscall.EISDIR
	}
	dev, err := blockdev.Open(path, o)
	if no := syscall.Errno(0); errors.As(err, &no) && path == name {
		return nil, no // who tells it names the device
	} else if err != nil {
		return nil, err
	}
	return dev, nil
}

// findDevice returns the block device whose file system, or external journal,
// has that label or UUID; "" if there is none.
func findDevice(key, value string) string {
	all, _ := filepath.Glob("/sys/class/block/*") // the pattern is good
	for _, sys := range all {
		path := "/dev/" + strings.ReplaceAll(filepath.Base(sys), "!", "/")
		b := make([]byte, ondisk.SuperSize)
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		_, err = f.ReadAt(b, ondisk.SuperOffset)
		f.Close()
		s := endian.View[ondisk.Super](b)
		if err != nil || s.Magic.Get() != ondisk.SuperMagic {
			continue
		}
		if key == "UUID" && strings.EqualFold(e2p.UUIDString(s.UUID), value) || key == "LABEL" && e2p.Text(s.VolumeName[:]) == value {
			return path
		}
	}
	return ""
}
