package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/internal/cli"
)

// options is what the command line asks for. It travels to the server process
// as JSON, so its fields are exported.
type options struct {
	Source     string
	Mountpoint string

	Foreground bool
	Debug      bool
	Single     bool // one worker
	ReadOnly   bool
	Offset     int64 // bytes
	Size       int64 // bytes, 0: to the end of the device
	Direct     bool  // O_DIRECT, failing if the device cannot
	NoDirect   bool
	CacheSize  int64 // bytes, 0: the library's default
	Lockfile   string

	NoRecovery  bool
	Errors      string // "", continue, remount-ro, panic
	Data        string // "", ordered, journal, writeback
	Commit      int    // seconds, 0: default
	JournalPath string
	Sync        bool
	Dirsync     bool
	Discard     bool
	InitItable  *int // rest between inode tables, see ext2fs.Options; -1: none is zeroed; nil: not said
	MinixDF     bool
	NoACL       bool
	NoUserXattr bool
	Fakeroot    bool
	UID, GID    *uint32
	Sandbox     string // strict, off
	RootNodeID  uint64 // of a mount whose root has another node id than 1
	Iomap       string // "", default, 0, 1: whether the kernel does the I/O of files
	IomapABI    string // "", may26, v7
	Uring       bool   // fail if requests cannot come by io_uring
	NoUring     bool   // do not try
	LockFd      bool   // to the server: an open file that is to stay so comes last
	IomapHelper string // "", optional, mandatory: have the mount helper ask for fuse-iomap

	AllowOther    bool
	NoDefaultOpts bool
	Subtype       string
	Fsname        string
	MountFlags    []string // handed to mount(2): nosuid, noatime, ...
	FuseOpts      []string // handed to the fuse driver: max_read=, ...
}

// mountFlags are the options that mount(2) has flags for.
var mountFlags = map[string]bool{
	"suid": true, "nosuid": true, "dev": true, "nodev": true, "exec": true, "noexec": true,
	"async": true, "atime": true, "noatime": true, "diratime": true, "nodiratime": true,
	"relatime": true, "norelatime": true, "strictatime": true, "nostrictatime": true,
	"lazytime": true, "nolazytime": true, "symfollow": true, "nosymfollow": true,
}

// ignored are options of mount(8), of fstab, of kernel ext4 and of C fuse2fs
// that ask for nothing, or for what is done anyway.
var ignored = map[string]bool{
	"defaults": true, "auto": true, "noauto": true, "user": true, "nouser": true, "users": true,
	"owner": true, "group": true, "_netdev": true, "nofail": true, "loop": true,
	"user_xattr": true, "block_validity": true, "noblock_validity": true, "delalloc": true, "nodelalloc": true,
	"barrier": true, "grpid": false, "nogrpid": true, "sysvgroups": true, "auto_da_alloc": true,
	"noauto_da_alloc": true, "dioread_nolock": true, "dioread_lock": true, "i_version": true,
	"default_permissions": true, "no_prefetch_block_bitmaps": true, "auto_unmount": true, "nonempty": true,
	"journal_checksum": true, "nojournal_checksum": true, "kernel_cache": true, "big_writes": true,
	"auto_cache": true, "splice_read": true, "splice_write": true, "splice_move": true,
}

// set applies one option of -o. An option that is not known is an error.
func (o *options) set(opt cli.Option) error {
	name, value, has := opt.Name, opt.Value, opt.HasValue
	if f, ok := plain[name]; ok {
		if has {
			return fmt.Errorf("option %s takes no value", name)
		}
		f(o)
		return nil
	}
	if f, ok := valued[name]; ok {
		if !has || value == "" {
			return fmt.Errorf("option %s needs a value: -o %s=…", name, name)
		}
		if err := f(o, value); err != nil {
			return fmt.Errorf("option %s=%s: %w", name, value, err)
		}
		return nil
	}
	switch {
	case mountFlags[name] && !has:
		o.MountFlags = append(o.MountFlags, name)
	case ignored[name], strings.HasPrefix(name, "x-"), strings.HasPrefix(name, "X-"), name == "comment":
	default:
		return fmt.Errorf("unknown option %q (fuse2fs --help lists them)", name)
	}
	return nil
}

// How long the server rests after zeroing an inode table: so many times as long
// as that took, by default as the kernel's ext4.
const (
	defaultInitItable = 10
	maxInitItable     = 1000000
)

// plain are the options without a value.
var plain = map[string]func(*options){
	"ro":              func(o *options) { o.ReadOnly = true },
	"rw":              func(o *options) { o.ReadOnly = false },
	"minixdf":         func(o *options) { o.MinixDF = true },
	"bsddf":           func(o *options) { o.MinixDF = false },
	"fakeroot":        func(o *options) { o.Fakeroot = true },
	"allow_other":     func(o *options) { o.AllowOther = true },
	"allow_others":    func(o *options) { o.AllowOther = true },
	"norecovery":      func(o *options) { o.NoRecovery = true },
	"noload":          func(o *options) { o.NoRecovery = true },
	"no_default_opts": func(o *options) { o.NoDefaultOpts = true },
	"acl":             func(o *options) { o.NoACL = false },
	"noacl":           func(o *options) { o.NoACL = true },
	"nouser_xattr":    func(o *options) { o.NoUserXattr = true },
	"debug":           func(o *options) { o.Debug = true },
	"fuse2fs_debug":   func(o *options) { o.Debug = true },
	"direct":          func(o *options) { o.Direct, o.NoDirect = true, false },
	"directio":        func(o *options) { o.Direct, o.NoDirect = true, false },
	"nodirect":        func(o *options) { o.Direct, o.NoDirect = false, true },
	"sync":            func(o *options) { o.Sync = true },
	"dirsync":         func(o *options) { o.Dirsync = true },
	"discard":         func(o *options) { o.Discard = true },
	"nodiscard":       func(o *options) { o.Discard = false },
	"uring":           func(o *options) { o.Uring, o.NoUring = true, false },
	"nouring":         func(o *options) { o.Uring, o.NoUring = false, true },
	"init_itable":     func(o *options) { o.InitItable = new(defaultInitItable) },
	"noinit_itable":   func(o *options) { o.InitItable = new(-1) },
	"kernel": func(o *options) {
		o.AllowOther, o.NoACL = true, false
		o.MountFlags = append(o.MountFlags, "suid", "dev")
	},
}

// valued are the options with a value.
var valued = map[string]func(*options, string) error{
	"offset":       func(o *options, v string) error { return parseSize(&o.Offset, v) },
	"size":         func(o *options, v string) error { return parseSize(&o.Size, v) },
	"cache_size":   func(o *options, v string) error { return parseSize(&o.CacheSize, v) },
	"lockfile":     func(o *options, v string) error { o.Lockfile = v; return nil },
	"journal_path": func(o *options, v string) error { o.JournalPath = v; return nil },
	"subtype":      func(o *options, v string) error { o.Subtype = v; return nil },
	"fsname":       func(o *options, v string) error { o.Fsname = v; return nil },
	"max_read":     func(o *options, v string) error { o.FuseOpts = append(o.FuseOpts, "max_read="+v); return nil },
	"errors":       oneOf(func(o *options) *string { return &o.Errors }, "continue", "remount-ro", "panic"),
	"data":         oneOf(func(o *options) *string { return &o.Data }, "ordered", "journal", "writeback"),
	"sandbox":      oneOf(func(o *options) *string { return &o.Sandbox }, "strict", "off"),
	"root_nodeid": func(o *options, v string) (err error) {
		// What ext4 uses no other inode number for.
		if o.RootNodeID, err = strconv.ParseUint(v, 10, 64); err != nil || o.RootNodeID != 1 && o.RootNodeID != 2 {
			return fmt.Errorf("must be 1 or 2")
		}
		o.FuseOpts = append(o.FuseOpts, "root_nodeid="+v)
		return nil
	},
	"iomap":        oneOf(func(o *options) *string { return &o.Iomap }, "default", "0", "1"),
	"iomap_abi":    oneOf(func(o *options) *string { return &o.IomapABI }, "may26", "v7"),
	"iomap_helper": oneOf(func(o *options) *string { return &o.IomapHelper }, "optional", "mandatory"),
	"uid":          func(o *options, v string) error { return parseID(&o.UID, v) },
	"gid":          func(o *options, v string) error { return parseID(&o.GID, v) },
	"barrier":      func(o *options, v string) error { return barrier(v) },
	"init_itable": func(o *options, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > maxInitItable {
			return fmt.Errorf("not a number from 0 to %d", maxInitItable)
		}
		o.InitItable = &n
		return nil
	},
	"commit": func(o *options, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > math.MaxInt32/1000 {
			return fmt.Errorf("not a number of seconds")
		}
		o.Commit = n
		return nil
	},
}

// initItableWait returns the rest between inode tables.
func (o *options) initItableWait() int {
	if o.InitItable == nil {
		return 0
	}
	return max(*o.InitItable, 0)
}

// barrier refuses what would give up crash safety without a word.
func barrier(v string) error {
	if v != "1" {
		return fmt.Errorf("writes are always ordered by flushes; only barrier=1 is possible")
	}
	return nil
}

func parseSize(dst *int64, v string) error {
	n, err := cli.ParseSize(v, 1)
	if err != nil {
		return err
	}
	if n < 0 {
		return fmt.Errorf("is negative")
	}
	*dst = n
	return nil
}

func parseID(dst **uint32, v string) error {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return fmt.Errorf("not a numeric id")
	}
	id := uint32(n)
	*dst = &id
	return nil
}

func oneOf(field func(*options) *string, choices ...string) func(*options, string) error {
	return func(o *options, v string) error {
		for _, c := range choices {
			if v == c {
				*field(o) = v
				return nil
			}
		}
		return fmt.Errorf("must be one of %s", strings.Join(choices, ", "))
	}
}
