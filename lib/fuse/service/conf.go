//go:build linux

package service

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// conf is /etc/fuse.conf: what users may do.
type conf struct {
	userAllowOther bool
	mountMax       int // FUSE mounts of the machine, for users to mount more; -1: any number
}

// readConf reads the file. One that cannot be read allows nothing special; what
// it has in it that is not understood is returned.
func readConf(path string) (conf, []string) {
	c := conf{mountMax: 1000}
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return c, nil
		}
		return c, []string{err.Error()}
	}
	defer f.Close()
	var warn []string
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		key, val, has := strings.Cut(line, "=")
		key, val = strings.TrimSpace(key), strings.TrimSpace(val)
		max, err := strconv.Atoi(val)
		switch {
		case key == "" && !has:
		case key == "user_allow_other" && !has:
			c.userAllowOther = true
		case key == "mount_max" && has && err == nil && max >= -1:
			c.mountMax = max
		default:
			warn = append(warn, fmt.Sprintf("%s:%d: not understood: %s", path, n, strings.TrimSpace(line)))
		}
	}
	if err := sc.Err(); err != nil {
		warn = append(warn, fmt.Sprintf("%s: %v", path, err))
	}
	return c, warn
}

// room fails with EUSERS if there are as many FUSE mounts as users may have.
func (c conf) room() error {
	if c.mountMax < 0 {
		return nil
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "fuse" || strings.HasPrefix(f[2], "fuse.")) {
			n++
		}
	}
	if n >= c.mountMax {
		return fmt.Errorf("%d FUSE mounts, and /etc/fuse.conf has mount_max=%d: %w", n, c.mountMax, unix.EUSERS)
	}
	return nil
}

// mountable are the file systems in which users may mount, by statfs's f_type:
// those for files, and not those in which the kernel shows itself.
var mountable = []uint64{
	0x61756673,         // aufs
	0x00000187,         // autofs
	0xca451a4e,         // bcachefs
	0x9123683e,         // btrfs
	0x00c36400,         // ceph
	0xff534d42,         // cifs
	0x0000f15f,         // ecryptfs
	0x2011bab0,         // exfat
	0x0000ef53,         // ext2, ext3, ext4
	0xf2f52010,         // f2fs
	0x65735546,         // fuse
	0x01161970,         // gfs2
	0x47504653,         // gpfs
	0x0000482b,         // hfsplus
	0x000072b6,         // jffs2
	0x3153464a,         // jfs
	0x0bd00bd0,         // lustre
	0x00004d44,         // msdos, vfat
	0x0000564c,         // ncp
	0x00006969,         // nfs
	0x00003434,         // nilfs2
	0x5346544e,         // ntfs
	0x7366746e,         // ntfs3
	0x5346414f,         // openafs
	0x794c7630,         // overlayfs
	0xaad7aaea,         // panfs
	0x52654973,         // reiserfs
	0xfe534d42,         // smb2
	0x73717368,         // squashfs
	0x01021994,         // tmpfs
	0x24051905,         // ubifs
	0x18031977,         // wekafs
	0x736675005346544e, // ufsd
	0x58465342,         // xfs
	0x2fc12fc1,         // zfs
	0x858458f6,         // ramfs
}
