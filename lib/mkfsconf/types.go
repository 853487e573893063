package mkfsconf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Default returns the configuration that is built in: in effect that of
// e2fsprogs 1.47.
func Default() *Config {
	c, err := Parse(builtin)
	if err != nil {
		panic(err) // it is ours
	}
	return c
}

const builtin = `
[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384

[fs_types]
	ext3 = {
		features = has_journal
	}
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
	small = {
		blocksize = 1024
		inode_ratio = 4096
	}
	floppy = {
		blocksize = 1024
		inode_ratio = 8192
	}
	big = {
		inode_ratio = 32768
	}
	huge = {
		inode_ratio = 65536
	}
	news = {
		inode_ratio = 4096
	}
	largefile = {
		inode_ratio = 1048576
		blocksize = -1
	}
	largefile4 = {
		inode_ratio = 4194304
		blocksize = -1
	}
	hurd = {
		blocksize = 4096
		inode_size = 128
		warn_y2038_dates = 0
	}
`

// Types are the kinds that a file system is of, the general one first, and what
// the configuration says about them.
type Types struct {
	Names []string
	c     *Config
}

// SizeType returns the usage type that a file system of size bytes has when
// nobody chose one.
func SizeType(size uint64) string {
	const mib = 1 << 20
	switch {
	case size < 3*mib:
		return "floppy"
	case size < 512*mib:
		return "small"
	case size < 4<<20*mib:
		return "default"
	case size < 16<<20*mib:
		return "big"
	}
	return "huge"
}

// Types returns the list for a file system type, such as ext4, and usage types
// with commas between them, sizeType if there is none. hurd adds that of the
// GNU Hurd. A type that is not configured is told in warnings, but without
// force the general one is an error, unless it is ext2, which takes no configuration.
func (c *Config) Types(fsType, usage, sizeType string, hurd, force bool) (t Types, warnings []string, err error) {
	if fsType != "ext2" && !c.HasSection("fs_types", fsType) {
		why := fmt.Sprintf("mke2fs.conf does not define the file system type %s", fsType)
		if !force {
			return t, nil, errors.New(why)
		}
		warnings = append(warnings, why)
	}
	t = Types{Names: []string{fsType}, c: c}
	if usage == "" {
		usage = sizeType
	}
	names := strings.FieldsFunc(usage, func(r rune) bool { return r == ',' })
	if hurd {
		names = append(names, "hurd")
	}
	for _, n := range names {
		switch {
		case c.HasSection("fs_types", n):
			t.Names = append(t.Names, n)
		case n != "default" && n != sizeType && n != "hurd":
			warnings = append(warnings, fmt.Sprintf("mke2fs.conf does not define the usage type %s", n))
		}
	}
	return t, warnings, nil
}

// Get returns the value of a relation: that of the last type which has it, else
// that of the defaults.
func (t Types) Get(name string) (value string, ok bool) {
	value, ok = t.c.Get("defaults", name)
	for _, n := range t.Names {
		if v, has := t.c.Get("fs_types", n, name); has {
			value, ok = v, true
		}
	}
	return value, ok
}

// String returns the value of a relation, or def.
func (t Types) String(name, def string) string {
	if v, ok := t.Get(name); ok {
		return v
	}
	return def
}

// Each returns the values that the types have, in their order: for features,
// which add up.
func (t Types) Each(name string) (values []string) {
	for _, n := range t.Names {
		if v, ok := t.c.Get("fs_types", n, name); ok {
			values = append(values, v)
		}
	}
	return values
}

// Int returns the value of a relation, def if there is none or it is no number.
func (t Types) Int(name string, def int64) int64 {
	if v, ok := t.Get(name); ok {
		if n, err := strconv.ParseInt(v, 0, 64); err == nil {
			return n
		}
	}
	return def
}

// Float is Int for numbers with a fraction.
func (t Types) Float(name string, def float64) float64 {
	if v, ok := t.Get(name); ok {
		if n, err := strconv.ParseFloat(v, 64); err == nil {
			return n
		}
	}
	return def
}

// Bool returns the value of a relation that is on or off, def if it is neither.
func (t Types) Bool(name string, def bool) bool {
	if v, ok := t.Get(name); ok {
		if b, ok := ParseBool(v); ok {
			return b
		}
	}
	return def
}
