package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/mkfsconf"
)

// extended are the options of -E.
type extended struct {
	offset       int64
	stride       uint64
	stripe       uint64
	resize       string
	lazyItable   *bool
	lazyJournal  *bool
	prezeroed    bool
	discard      *bool
	packed       *bool
	backups      int // -1: not given
	descSize     int64
	hashSeed     *[16]byte
	rootUID      uint32
	rootGID      uint32
	rootMode     uint16
	rootSELinux  string
	quotaTypes   int
	mmpInterval  uint16
	encoding     string
	encFlags     *uint16
	orphanSize   string
	revision     int // -1: not given
	testFS       bool
	noCopyXattrs bool
}

// parse reads a list. Names have _ or - between words.
func (e *extended) parse(list string) error {
	opts, err := cli.ParseOptions(list)
	if err != nil {
		return err
	}
	for _, o := range opts {
		if err := e.set(o); err != nil {
			return err
		}
	}
	return nil
}

func (e *extended) set(o cli.Option) (err error) {
	num := func(dst *uint64, most uint64) error {
		n, err := cli.ParseUint(o, most)
		*dst = n
		return err
	}
	onOff := func(dst **bool) error {
		b := true
		if o.HasValue {
			v, ok := mkfsconf.ParseBool(o.Value)
			if !ok {
				return cli.Usagef("option %s: %q is neither on nor off", o.Name, o.Value)
			}
			b = v
		}
		*dst = &b
		return nil
	}
	var n uint64
	switch strings.ReplaceAll(o.Name, "-", "_") {
	case "offset":
		if e.offset, err = cli.ParseSize(o.Value, 1); err != nil {
			return cli.Usagef("option offset: %v", err)
		}
	case "stride":
		return num(&e.stride, 65535)
	case "stripe_width":
		return num(&e.stripe, 1<<32-1)
	case "resize":
		e.resize = o.Value
		if e.resize == "" {
			return cli.Usagef("option resize needs a value: resize=BLOCKS")
		}
	case "lazy_itable_init":
		return onOff(&e.lazyItable)
	case "lazy_journal_init":
		return onOff(&e.lazyJournal)
	case "assume_storage_prezeroed":
		var b *bool
		if err := onOff(&b); err != nil {
			return err
		}
		e.prezeroed = *b
	case "discard":
		v := true
		e.discard = &v
	case "nodiscard":
		v := false
		e.discard = &v
	case "packed_meta_blocks":
		return onOff(&e.packed)
	case "num_backup_sb":
		err = num(&n, 2)
		e.backups = int(n)
	case "desc_size":
		err = num(&n, 1024)
		e.descSize = int64(n)
		if err == nil && (n < 32 || n&(n-1) != 0) {
			err = cli.Usagef("descriptor size %d is not a power of two from 32 to 1024", n)
		}
	case "hash_seed":
		u, ok := parseUUID(o.Value)
		if !ok {
			return cli.Usagef("hash_seed %q is not a UUID", o.Value)
		}
		e.hashSeed = &u
	case "root_owner":
		return e.setOwner(o)
	case "root_perms":
		m, perr := strconv.ParseUint(o.Value, 8, 16)
		if perr != nil || m > 0o7777 {
			return cli.Usagef("root_perms %q is not an octal mode", o.Value)
		}
		e.rootMode = uint16(m)
	case "root_selinux":
		e.rootSELinux = o.Value
	case "quotatype":
		return e.setQuota(o.Value)
	case "mmp_update_interval":
		err = num(&n, 300)
		e.mmpInterval = uint16(n)
	case "encoding":
		if e.encoding = strings.ToLower(o.Value); e.encoding != "utf8" && e.encoding != "utf8-12.1" {
			return cli.Usagef("unknown encoding %q: utf8 or utf8-12.1", o.Value)
		}
	case "encoding_flags":
		v, err := encodingFlags(o.Value)
		if err != nil {
			return err
		}
		e.encFlags = &v
	case "orphan_file_size":
		e.orphanSize = o.Value
		_, err = cli.ParseSize(o.Value, 1)
	case "revision":
		err = num(&n, 1)
		e.revision = int(n)
	case "test_fs":
		e.testFS = true
	case "no_copy_xattrs":
		e.noCopyXattrs = true
	case "android_sparse":
		return cli.Usagef("android_sparse images are not supported")
	default:
		return cli.Usagef("unknown extended option %q (--help=extended lists them)", o.Name)
	}
	return err
}

func (e *extended) setOwner(o cli.Option) error {
	if !o.HasValue {
		e.rootUID, e.rootGID = uint32(os.Getuid()), uint32(os.Getgid())
		return nil
	}
	u, g, ok := strings.Cut(o.Value, ":")
	uid, err1 := strconv.ParseUint(u, 0, 32)
	gid, err2 := strconv.ParseUint(g, 0, 32)
	if !ok || err1 != nil || err2 != nil {
		return cli.Usagef("root_owner %q is not UID:GID", o.Value)
	}
	e.rootUID, e.rootGID = uint32(uid), uint32(gid)
	return nil
}

func (e *extended) setQuota(v string) error {
	e.quotaTypes = 0
	for _, w := range strings.Split(v, ":") {
		switch w {
		case "usr", "usrquota":
			e.quotaTypes |= ext2fs.QuotaUser
		case "grp", "grpquota":
			e.quotaTypes |= ext2fs.QuotaGroup
		case "prj", "prjquota":
			e.quotaTypes |= ext2fs.QuotaProject
		default:
			return cli.Usagef("unknown quota type %q: usrquota, grpquota, prjquota", w)
		}
	}
	return nil
}

func encodingFlags(v string) (flags uint16, err error) {
	for _, w := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ':' }) {
		switch w {
		case "strict":
			flags |= 1
		case "nostrict":
			flags &^= 1
		default:
			return 0, cli.Usagef("unknown encoding flag %q: strict or nostrict", w)
		}
	}
	return flags, nil
}

// parseUUID reads a UUID; null and clear are that of zeros.
func parseUUID(s string) (u [16]byte, ok bool) {
	if s == "null" || s == "clear" {
		return u, true
	}
	if len(s) != 36 {
		return u, false
	}
	for i, k := 0, 0; i < len(s); i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return u, false
			}
			continue
		}
		if i+1 >= len(s) {
			return u, false
		}
		n, err := strconv.ParseUint(s[i:i+2], 16, 8)
		if err != nil || s[i] == '+' || s[i] == '-' {
			return u, false
		}
		u[k] = byte(n)
		k++
		i++
	}
	return u, true
}

func formatUUID(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
