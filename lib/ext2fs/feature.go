package ext2fs

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Incompat features that this package reads.
const incompatKnown = ondisk.IncompatFiletype | ondisk.IncompatRecover | ondisk.IncompatMetaBG |
	ondisk.IncompatExtents | ondisk.Incompat64Bit | ondisk.IncompatMMP | ondisk.IncompatFlexBG |
	ondisk.IncompatEAInode | ondisk.IncompatCsumSeed | ondisk.IncompatLargeDir |
	ondisk.IncompatInlineData | ondisk.IncompatEncrypt | ondisk.IncompatCasefold

// Incompat and ro-compat features that this package reads but does not keep up
// to date, so that a file system with one is opened read-only.
const (
	incompatReadOnly = ondisk.IncompatMMP | ondisk.IncompatEncrypt | ondisk.IncompatCasefold
	roCompatReadOnly = ondisk.ROCompatQuota | ondisk.ROCompatVerity | ondisk.ROCompatReadonly
)

// Those of them that are no obstacle to filling a file system that was just
// made, nor to editing one that nobody else has mounted, so that its block of
// multiple mount protection is left to the caller. Quotas are counted at the end,
// by FillQuota; what is encrypted, verified or folded in a way that is not known
// is not changed.
const (
	incompatFillable = ondisk.IncompatMMP | ondisk.IncompatEncrypt | ondisk.IncompatCasefold
	roCompatFillable = ondisk.ROCompatQuota | ondisk.ROCompatVerity
)

// mayAdd says why no entry of that name can be added to a directory with such
// flags, nil if one can.
func mayAdd(flags uint32, name []byte) error {
	switch {
	case flags&ondisk.FlagEncrypt != 0:
		return &ondisk.UnsupportedError{Feature: "new names in an encrypted directory"}
	case flags&ondisk.FlagCasefold != 0 && !ascii(name):
		return &ondisk.UnsupportedError{Feature: "names outside of ASCII in a directory that folds case"}
	}
	return nil
}

// mayWrite says why the content of ip cannot be changed, nil if it can.
func (ip *Inode) mayWrite() error {
	switch {
	case ip.flagged(ondisk.FlagEncrypt):
		return &ondisk.UnsupportedError{Feature: "writing to an encrypted file"}
	case ip.flagged(ondisk.FlagVerity):
		return syscall.EPERM
	}
	return nil
}

// isNew tells whether s is as making a file system leaves it: never mounted, and
// with no inode in use but those that every file system has and those of its
// orphan file and project quota.
func isNew(s *ondisk.Super) bool {
	own := uint64(s.FirstInode()) // lost+found has the first that is not reserved
	if s.HasCompat(ondisk.CompatOrphanFile) {
		own++
	}
	if s.PrjQuotaInum.Get() != 0 {
		own++
	}
	return s.MntCount.Get() == 0 && s.Mtime.Get() == 0 && s.MtimeHi[0] == 0 && s.LastOrphan.Get() == 0 &&
		s.State.Get() == ondisk.StateValid && uint64(s.FreeInodes.Get())+own >= uint64(s.InodesCount.Get())
}

// Ro-compat features that this package keeps up to date.
const roCompatKnown = ondisk.ROCompatSparseSuper | ondisk.ROCompatLargeFile | ondisk.ROCompatBtreeDir |
	ondisk.ROCompatHugeFile | ondisk.ROCompatGDTCsum | ondisk.ROCompatDirNlink |
	ondisk.ROCompatExtraIsize | ondisk.ROCompatBigalloc | ondisk.ROCompatMetadataCsum |
	ondisk.ROCompatProject | ondisk.ROCompatOrphanPresent

// Names of the features that messages here have to name.
var (
	incompatNames = map[uint32]string{
		ondisk.IncompatCompression: "compression", ondisk.IncompatJournalDev: "journal_dev",
		ondisk.IncompatDirData: "dirdata", ondisk.IncompatMMP: "mmp",
		ondisk.IncompatEncrypt: "encrypt", ondisk.IncompatCasefold: "casefold",
	}
	roCompatNames = map[uint32]string{
		ondisk.ROCompatQuota: "quota", ondisk.ROCompatVerity: "verity",
		ondisk.ROCompatReadonly:    "read-only",
		ondisk.ROCompatHasSnapshot: "snapshot", ondisk.ROCompatReplica: "replica",
		ondisk.ROCompatSharedBlocks: "shared_blocks",
	}
)

// names lists the bits of a feature word; kind is for those without a name.
func names(bits uint32, known map[uint32]string, kind string) string {
	var out []string
	for b := uint32(1); b != 0; b <<= 1 {
		switch n, ok := known[b]; {
		case bits&b == 0:
		case ok:
			out = append(out, n)
		default:
			out = append(out, fmt.Sprintf("%s bit %#x", kind, b))
		}
	}
	return strings.Join(out, ", ")
}

// checkFeatures returns what keeps s from being written, or from being filled or
// edited if it is fillable, "" if nothing does. It fails with an UnsupportedError if s cannot be read either.
func checkFeatures(s *ondisk.Super, fillable bool) (readOnly string, err error) {
	if s.RevLevel.Get() < ondisk.DynamicRev {
		return "", nil
	}
	in, ro := s.FeatureIncompat.Get(), s.FeatureROCompat.Get()
	if in&ondisk.IncompatJournalDev != 0 {
		return "", &ondisk.UnsupportedError{Feature: "journal_dev: this is an external journal, not a file system"}
	}
	if x := in &^ incompatKnown; x != 0 {
		return "", &ondisk.UnsupportedError{Feature: names(x, incompatNames, "incompat")}
	}
	if ro&ondisk.ROCompatBigalloc != 0 && in&ondisk.IncompatExtents == 0 {
		return "", &ondisk.UnsupportedError{Feature: "bigalloc without extents"}
	}
	if fillable {
		in &^= incompatFillable
		ro &^= roCompatFillable
	}
	var why []string
	if x := in & incompatReadOnly; x != 0 {
		why = append(why, names(x, incompatNames, "incompat"))
	}
	if x := ro & (roCompatReadOnly | ^uint32(roCompatKnown)); x != 0 {
		why = append(why, names(x, roCompatNames, "ro_compat"))
	}
	return strings.Join(why, ", "), nil
}

// KnownFeatures returns the compat, incompat and ro-compat features that this
// package can at least look at, as Raw does.
func KnownFeatures() [3]uint32 {
	const compat = ondisk.CompatDirPrealloc | ondisk.CompatImagicInodes | ondisk.CompatHasJournal | ondisk.CompatExtAttr |
		ondisk.CompatResizeInode | ondisk.CompatDirIndex | ondisk.CompatSparseSuper2 | ondisk.CompatFastCommit |
		ondisk.CompatStableInodes | ondisk.CompatOrphanFile
	return [3]uint32{compat, incompatKnown | ondisk.IncompatJournalDev,
		(roCompatKnown | roCompatReadOnly | ondisk.ROCompatSharedBlocks) &^ uint32(ondisk.ROCompatBtreeDir)}
}
