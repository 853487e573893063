package e2p

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Class is one of the three words that feature bits stand in.
type Class int

// The words, in the order in which their features are printed.
const (
	Compat Class = iota
	Incompat
	ROCompat
	classes
)

// Features are the feature bits of a file system, by Class.
type Features [classes]uint32

// FeaturesOf returns the features that a superblock has.
func FeaturesOf(s *ondisk.Super) Features {
	return Features{s.FeatureCompat.Get(), s.FeatureIncompat.Get(), s.FeatureROCompat.Get()}
}

type feature struct {
	class Class
	bit   uint32
	name  string
}

var features = []feature{
	{Compat, ondisk.CompatDirPrealloc, "dir_prealloc"},
	{Compat, ondisk.CompatHasJournal, "has_journal"},
	{Compat, ondisk.CompatImagicInodes, "imagic_inodes"},
	{Compat, ondisk.CompatExtAttr, "ext_attr"},
	{Compat, ondisk.CompatDirIndex, "dir_index"},
	{Compat, ondisk.CompatResizeInode, "resize_inode"},
	{Compat, ondisk.CompatLazyBG, "lazy_bg"},
	{Compat, ondisk.CompatExcludeBitmap, "snapshot_bitmap"},
	{Compat, ondisk.CompatSparseSuper2, "sparse_super2"},
	{Compat, ondisk.CompatFastCommit, "fast_commit"},
	{Compat, ondisk.CompatStableInodes, "stable_inodes"},
	{Compat, ondisk.CompatOrphanFile, "orphan_file"},

	{ROCompat, ondisk.ROCompatSparseSuper, "sparse_super"},
	{ROCompat, ondisk.ROCompatLargeFile, "large_file"},
	{ROCompat, ondisk.ROCompatHugeFile, "huge_file"},
	{ROCompat, ondisk.ROCompatGDTCsum, "uninit_bg"},
	{ROCompat, ondisk.ROCompatGDTCsum, "uninit_groups"},
	{ROCompat, ondisk.ROCompatDirNlink, "dir_nlink"},
	{ROCompat, ondisk.ROCompatExtraIsize, "extra_isize"},
	{ROCompat, ondisk.ROCompatQuota, "quota"},
	{ROCompat, ondisk.ROCompatBigalloc, "bigalloc"},
	{ROCompat, ondisk.ROCompatMetadataCsum, "metadata_csum"},
	{ROCompat, ondisk.ROCompatReplica, "replica"},
	{ROCompat, ondisk.ROCompatReadonly, "read-only"},
	{ROCompat, ondisk.ROCompatProject, "project"},
	{ROCompat, ondisk.ROCompatSharedBlocks, "shared_blocks"},
	{ROCompat, ondisk.ROCompatVerity, "verity"},
	{ROCompat, ondisk.ROCompatOrphanPresent, "orphan_present"},

	{Incompat, ondisk.IncompatCompression, "compression"},
	{Incompat, ondisk.IncompatFiletype, "filetype"},
	{Incompat, ondisk.IncompatRecover, "needs_recovery"},
	{Incompat, ondisk.IncompatJournalDev, "journal_dev"},
	{Incompat, ondisk.IncompatMetaBG, "meta_bg"},
	{Incompat, ondisk.IncompatExtents, "extent"},
	{Incompat, ondisk.IncompatExtents, "extents"},
	{Incompat, ondisk.Incompat64Bit, "64bit"},
	{Incompat, ondisk.IncompatMMP, "mmp"},
	{Incompat, ondisk.IncompatFlexBG, "flex_bg"},
	{Incompat, ondisk.IncompatEAInode, "ea_inode"},
	{Incompat, ondisk.IncompatDirData, "dirdata"},
	{Incompat, ondisk.IncompatCsumSeed, "metadata_csum_seed"},
	{Incompat, ondisk.IncompatLargeDir, "large_dir"},
	{Incompat, ondisk.IncompatInlineData, "inline_data"},
	{Incompat, ondisk.IncompatEncrypt, "encrypt"},
	{Incompat, ondisk.IncompatCasefold, "casefold"},
}

// unnamed are the prefixes, before a bit's number, of features without a name.
var unnamed = [classes]string{Compat: "FEATURE_C", Incompat: "FEATURE_I", ROCompat: "FEATURE_R"}

// FeatureName returns the name of the lowest bit that is set in bit.
func FeatureName(c Class, bit uint32) string {
	bit &= -bit
	for _, f := range features {
		if f.class == c && f.bit == bit {
			return f.name
		}
	}
	return unnamed[c] + strconv.Itoa(bits.TrailingZeros32(bit))
}

// FeatureNames lists the features, with spaces between them, in the order in
// which e2fsprogs has them; "(none)" if there is none.
func FeatureNames(f Features) string {
	var out []string
	for c, w := range f {
		for ; w != 0; w &= w - 1 {
			out = append(out, FeatureName(Class(c), w))
		}
	}
	if out == nil {
		return "(none)"
	}
	return strings.Join(out, " ")
}

// ParseFeature returns the class and bit of a feature's name, in any case;
// FEATURE_C7 and its like name a bit by number.
func ParseFeature(name string) (Class, uint32, error) {
	for _, f := range features {
		if strings.EqualFold(f.name, name) {
			return f.class, f.bit, nil
		}
	}
	for c, p := range unnamed {
		if len(name) > len(p) && strings.EqualFold(name[:len(p)], p) {
			if n, err := strconv.ParseUint(name[len(p):], 10, 8); err == nil && n < 32 {
				return Class(c), 1 << n, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("unknown feature %q", name)
}

// EditFeatures changes f by a list such as "extent,^dir_index,none,64bit":
// names, separated by commas or spaces, to set; after ^ or -, to clear; none
// clears all. Names of bits that are not in may are an error (set) or not
// allowed to go (clear, by mayClear); nil allows all. On an error f may have
// been changed in part.
func EditFeatures(list string, f, may, mayClear *Features) error {
	for _, w := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		if strings.EqualFold(w, "none") {
			*f = Features{}
			continue
		}
		name, clear := w, false
		switch w[0] {
		case '-', '^':
			name, clear = w[1:], true
		case '+':
			name = w[1:]
		}
		c, bit, err := ParseFeature(name)
		if err != nil {
			return err
		}
		allowed := may
		if clear {
			allowed = mayClear
		}
		if allowed != nil && allowed[c]&bit == 0 {
			return fmt.Errorf("feature %q cannot be changed so", w)
		}
		if clear {
			f[c] &^= bit
		} else {
			f[c] |= bit
		}
	}
	return nil
}
