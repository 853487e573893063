//go:build linux

package fuse

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOptions says what to mount.
type MountOptions struct {
	Source  string // shown as the device, such as the image's path
	Subtype string // of the type: "ext4" makes fuse.ext4

	// BlockDevice, if not empty, mounts as fuseblk, on this block device. The
	// kernel then sends SYNCFS for syncfs(2) and DESTROY at unmount, and
	// waits for both; on other mounts it sends neither. It takes privilege in
	// the initial user namespace, and the kernel claims the device: an O_EXCL
	// open elsewhere makes it fail with EBUSY. Source, if not empty, is then a
	// path of another file, such as the image behind a loop device, that is
	// shown instead.
	BlockDevice string
	BlkSize     int // of a BlockDevice, 512 to 4096; default 4096

	Flags uintptr // MS_*

	AllowOther         bool // let others than the mounting user in
	DefaultPermissions bool // let the kernel check modes
	MaxRead            int  // bytes in a READ; 0 is no limit but MaxPages'
	AutoUnmount        bool // with fusermount, and AllowOther: unmount when the server dies
	RootMode           uint32
	RootNodeID         int // of the root, 0 being 1; only some kernels know it
}

// Flags by their names in options; those with a false value are cleared.
var mountFlags = map[string]struct {
	flag uintptr
	set  bool
}{
	"rw": {unix.MS_RDONLY, false}, "ro": {unix.MS_RDONLY, true},
	"suid": {unix.MS_NOSUID, false}, "nosuid": {unix.MS_NOSUID, true},
	"dev": {unix.MS_NODEV, false}, "nodev": {unix.MS_NODEV, true},
	"exec": {unix.MS_NOEXEC, false}, "noexec": {unix.MS_NOEXEC, true},
	"async": {unix.MS_SYNCHRONOUS, false}, "sync": {unix.MS_SYNCHRONOUS, true},
	"dirsync": {unix.MS_DIRSYNC, true},
	"atime":   {unix.MS_NOATIME, false}, "noatime": {unix.MS_NOATIME, true},
	"diratime": {unix.MS_NODIRATIME, false}, "nodiratime": {unix.MS_NODIRATIME, true},
	"norelatime": {unix.MS_RELATIME, false}, "relatime": {unix.MS_RELATIME, true},
	"nostrictatime": {unix.MS_STRICTATIME, false}, "strictatime": {unix.MS_STRICTATIME, true},
	"nolazytime": {unix.MS_LAZYTIME, false}, "lazytime": {unix.MS_LAZYTIME, true},
	"symfollow": {unix.MS_NOSYMFOLLOW, false}, "nosymfollow": {unix.MS_NOSYMFOLLOW, true},
	"silent": {unix.MS_SILENT, true}, "loud": {unix.MS_SILENT, false},
}

// Set takes one option as mount(8) has it, such as "noatime" or
// "max_read=65536". It reports false for one that is neither the kernel's nor
// FUSE's, which the caller may know. It fails if the value is bad.
func (o *MountOptions) Set(opt string) (known bool, err error) {
	if f, ok := mountFlags[opt]; ok {
		o.Flags &^= f.flag
		if f.set {
			o.Flags |= f.flag
		}
		return true, nil
	}
	key, val, hasVal := strings.Cut(opt, "=")
	number := func(lo, hi int) (int, error) {
		n, err := strconv.Atoi(val)
		if err != nil || n < lo || n > hi {
			return 0, fmt.Errorf("mount option %s: not a number between %d and %d", opt, lo, hi)
		}
		return n, nil
	}
	switch key {
	case "allow_other":
		o.AllowOther = true
	case "default_permissions":
		o.DefaultPermissions = true
	case "auto_unmount":
		o.AutoUnmount = true
	case "fsname":
		o.Source = val
		return true, nil
	case "subtype":
		o.Subtype = val
		return true, nil
	case "max_read":
		o.MaxRead, err = number(4096, 1<<30)
		return true, err
	case "root_nodeid":
		o.RootNodeID, err = number(1, 1<<30)
		return true, err
	case "blksize":
		o.BlkSize, err = number(512, 65536)
		return true, err
	default:
		return false, nil
	}
	if hasVal {
		return true, fmt.Errorf("mount option %s takes no value", key)
	}
	return true, nil
}

// Kernel returns the options that the kernel's driver is to see, apart from those
// that Flags stands for and those that say who mounts what.
func (o *MountOptions) Kernel() []string {
	var p []string
	if o.AllowOther {
		p = append(p, "allow_other")
	}
	if o.DefaultPermissions {
		p = append(p, "default_permissions")
	}
	if o.MaxRead > 0 {
		p = append(p, "max_read="+strconv.Itoa(o.MaxRead))
	}
	if o.RootNodeID != 0 {
		p = append(p, "root_nodeid="+strconv.Itoa(o.RootNodeID))
	}
	return p
}

// names returns the options that flags stands for.
func flagNames(flags uintptr) []string {
	var s []string
	for _, n := range []string{"ro", "nosuid", "nodev", "noexec", "sync", "dirsync", "noatime", "nodiratime", "relatime", "strictatime", "lazytime", "nosymfollow"} {
		if flags&mountFlags[n].flag != 0 {
			s = append(s, n)
		}
	}
	return s
}
