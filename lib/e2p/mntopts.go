package e2p

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// mntopts are the default mount options; the journal modes share two bits.
var mntopts = []struct {
	mask, bits uint32
	name       string
}{
	{ondisk.DefmJmode, ondisk.DefmJmodeData, "journal_data"},
	{ondisk.DefmJmode, ondisk.DefmJmodeOrdered, "journal_data_ordered"},
	{ondisk.DefmJmode, ondisk.DefmJmodeWback, "journal_data_writeback"},
	{ondisk.DefmDebug, ondisk.DefmDebug, "debug"},
	{ondisk.DefmBSDGroups, ondisk.DefmBSDGroups, "bsdgroups"},
	{ondisk.DefmXattrUser, ondisk.DefmXattrUser, "user_xattr"},
	{ondisk.DefmACL, ondisk.DefmACL, "acl"},
	{ondisk.DefmUID16, ondisk.DefmUID16, "uid16"},
	{ondisk.DefmNoBarrier, ondisk.DefmNoBarrier, "nobarrier"},
	{ondisk.DefmBlockValidity, ondisk.DefmBlockValidity, "block_validity"},
	{ondisk.DefmDiscard, ondisk.DefmDiscard, "discard"},
	{ondisk.DefmNoDelalloc, ondisk.DefmNoDelalloc, "nodelalloc"},
}

// MountOptionNames lists the default mount options of a superblock
// (Super.DefaultMountOpts) with spaces between them; "(none)" if there is none.
func MountOptionNames(opts uint32) string {
	out := appendMountOption(nil, opts, ondisk.DefmJmode)
	for rest := opts &^ ondisk.DefmJmode; rest != 0; rest &= rest - 1 {
		out = appendMountOption(out, opts, rest&-rest)
	}
	if out == nil {
		return "(none)"
	}
	return strings.Join(out, " ")
}

// appendMountOption appends the name of what opts has in mask.
func appendMountOption(out []string, opts, mask uint32) []string {
	for _, m := range mntopts {
		if m.mask == mask && opts&mask == m.bits {
			return append(out, m.name)
		}
	}
	if opts&mask != 0 {
		out = append(out, "MNTOPT_"+strconv.Itoa(bits.TrailingZeros32(mask)))
	}
	return out
}

// ParseMountOption returns the bits of a default mount option, and the mask of
// those that it replaces.
func ParseMountOption(name string) (value, mask uint32, err error) {
	for _, m := range mntopts {
		if strings.EqualFold(m.name, name) {
			return m.bits, m.mask, nil
		}
	}
	const p = "MNTOPT_"
	if len(name) > len(p) && strings.EqualFold(name[:len(p)], p) {
		if n, err := strconv.ParseUint(name[len(p):], 10, 8); err == nil && n < 32 {
			return 1 << n, 1 << n, nil
		}
	}
	return 0, 0, fmt.Errorf("unknown mount option %q", name)
}
