// Package mkfsconf reads mke2fs.conf: what kinds of file systems there are, and
// what each of them is made with.
//
// The format is the one of e2fsprogs: sections, relations, and sections within
// sections. [Load] finds the configuration as mke2fs does; [Default] is built in
// and used where there is no file. A [Config] does not change, so it may be
// used by many at once.
//
//	c, err := mkfsconf.Load()
//	types, warnings, err := c.Types("ext4", "", "small", false, false)
//	size := types.Int("blocksize", 4096)
package mkfsconf
