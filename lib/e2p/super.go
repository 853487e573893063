package e2p

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Names are what a listing has to ask its surroundings for. The zero value
// knows no user and no group, and has times in UTC.
type Names struct {
	User     func(id uint32) (name string, ok bool)
	Group    func(id uint32) (name string, ok bool)
	Location *time.Location
}

func (n *Names) location() *time.Location {
	if n.Location == nil {
		return time.UTC
	}
	return n.Location
}

// lister writes lines of a value and its label; the last Flush tells of errors.
type lister struct{ *bufio.Writer }

// value writes a line with a label, padded to where values stand.
func (l lister) value(label, format string, args ...any) {
	fmt.Fprintf(l, "%-26s", label+":")
	fmt.Fprintf(l, format, args...)
	l.WriteByte('\n')
}

// number writes a line with a number, unless it is 0.
func (l lister) number(label string, v uint32) {
	if v != 0 {
		l.value(label, "%d", v)
	}
}

// superBits looks at the feature bits of a superblock whatever its revision,
// as e2fsprogs does.
type superBits struct{ *ondisk.Super }

func (s superBits) incompat(bit uint32) bool { return s.FeatureIncompat.Get()&bit != 0 }
func (s superBits) roCompat(bit uint32) bool { return s.FeatureROCompat.Get()&bit != 0 }
func (s superBits) compat(bit uint32) bool   { return s.FeatureCompat.Get()&bit != 0 }

// wide joins the halves of a number of blocks.
func (s superBits) wide(lo, hi uint32) uint64 {
	if !s.incompat(ondisk.Incompat64Bit) {
		hi = 0
	}
	return uint64(hi)<<32 | uint64(lo)
}

func (s superBits) inodeSize() uint32 {
	if s.RevLevel.Get() == ondisk.GoodOldRev {
		return ondisk.GoodOldInodeSz
	}
	return uint32(s.InodeSize.Get())
}

// itableBlocks returns the blocks of a group's inode table.
func (s superBits) itableBlocks() uint32 {
	bs := uint32(1024) << (s.LogBlockSize.Get() & 31)
	if bs == 0 {
		return 0 // no block size that is one
	}
	return (s.InodesPerGroup.Get()*s.inodeSize() + bs - 1) / bs
}

// sec40 joins a time and its upper byte.
func sec40(lo uint32, hi [1]byte) int64 { return int64(hi[0])<<32 | int64(lo) }

// ListSuper writes what a superblock says, as dumpe2fs -h, tune2fs -l and the
// stats of debugfs begin. Nothing of it is taken on trust: any bytes are listed.
func ListSuper(w io.Writer, sb *ondisk.Super, names Names) error {
	l, s, loc := lister{bufio.NewWriter(w)}, superBits{sb}, names.location()
	l.identity(s)
	l.sizes(s)
	l.times(s, loc)
	l.owners(s, &names)
	l.inodes(s)
	l.journal(s)
	l.backups(s)
	l.errors(s, loc)
	l.extras(s)
	return l.Flush()
}

// identity writes who the file system is and what it has.
func (l lister) identity(s superBits) {
	or := func(v, none string) string {
		if v == "" {
			return none
		}
		return v
	}
	l.value("Filesystem volume name", "%s", or(Clean(Text(s.VolumeName[:])), "<none>"))
	l.value("Last mounted on", "%s", or(Clean(Text(s.LastMounted[:])), "<not available>"))
	l.value("Filesystem UUID", "%s", uuidOrNone(s.UUID))
	l.value("Filesystem magic number", "0x%04X", s.Magic.Get())
	rev := "unknown"
	switch s.RevLevel.Get() {
	case ondisk.GoodOldRev:
		rev = "original"
	case ondisk.DynamicRev:
		rev = "dynamic"
	}
	l.value("Filesystem revision #", "%d (%s)", int32(s.RevLevel.Get()), rev)
	l.value("Filesystem features", "%s", FeatureNames(FeaturesOf(s.Super)))
	if f := s.Flags.Get(); f != 0 {
		l.value("Filesystem flags", "%s", superFlags(f))
	}
	l.value("Default mount options", "%s", MountOptionNames(s.DefaultMountOpts.Get()))
	if o := Clean(Text(s.MountOpts[:])); o != "" {
		l.value("Mount options", "%s", o)
	}
	l.value("Filesystem state", "%s", StateName(s.State.Get()))
	l.value("Errors behavior", "%s", ErrorsName(s.Errors.Get()))
	l.value("Filesystem OS type", "%s", OSName(s.CreatorOS.Get()))
}

// sizes writes counts and geometry.
func (l lister) sizes(s superBits) {
	l.value("Inode count", "%d", s.InodesCount.Get())
	l.value("Block count", "%d", s.wide(s.BlocksCountLo.Get(), s.BlocksCountHi.Get()))
	l.value("Reserved block count", "%d", s.wide(s.RBlocksCountLo.Get(), s.RBlocksCountHi.Get()))
	l.number("Overhead clusters", s.OverheadClusters.Get())
	l.value("Free blocks", "%d", s.wide(s.FreeBlocksLo.Get(), s.FreeBlocksHi.Get()))
	l.value("Free inodes", "%d", s.FreeInodes.Get())
	l.value("First block", "%d", s.FirstDataBlock.Get())
	l.value("Block size", "%d", uint32(1024)<<(s.LogBlockSize.Get()&31))
	unit := "Fragment"
	if s.roCompat(ondisk.ROCompatBigalloc) {
		unit = "Cluster"
	}
	l.value(unit+" size", "%d", uint32(1024)<<(s.LogClusterSize.Get()&31))
	if s.incompat(ondisk.Incompat64Bit) {
		l.value("Group descriptor size", "%d", s.DescSize.Get())
	}
	l.number("Reserved GDT blocks", uint32(s.ReservedGDTBlocks.Get()))
	l.value("Blocks per group", "%d", s.BlocksPerGroup.Get())
	l.value(unit+"s per group", "%d", s.ClustersPerGroup.Get())
	l.value("Inodes per group", "%d", s.InodesPerGroup.Get())
	l.value("Inode blocks per group", "%d", s.itableBlocks())
	l.number("RAID stride", uint32(s.RAIDStride.Get()))
	l.number("RAID stripe width", s.RAIDStripeWidth.Get())
	l.number("First meta block group", s.FirstMetaBG.Get())
	if n := s.LogGroupsPerFlex[0]; n != 0 {
		l.value("Flex block group size", "%d", uint32(1)<<(n&31))
	}
}

// times writes when what was done, and how often.
func (l lister) times(s superBits, loc *time.Location) {
	at := func(label string, sec int64) { fmt.Fprintf(l, "%-26s%s", label+":", ctimeLine(sec, loc)) }
	if t := sec40(s.MkfsTime.Get(), s.MkfsTimeHi); t != 0 {
		at("Filesystem created", t)
	}
	if t := sec40(s.Mtime.Get(), s.MtimeHi); t != 0 {
		at("Last mount time", t)
	} else {
		l.value("Last mount time", "n/a")
	}
	at("Last write time", sec40(s.Wtime.Get(), s.WtimeHi))
	l.value("Mount count", "%d", s.MntCount.Get())
	l.value("Maximum mount count", "%d", int16(s.MaxMntCount.Get()))
	checked := sec40(s.Lastcheck.Get(), s.LastcheckHi)
	at("Last checked", checked)
	every := s.Checkinterval.Get()
	l.value("Check interval", "%d (%s)", every, Interval(every))
	if every != 0 {
		at("Next check after", checked+int64(every))
	}
	if kb := s.KbytesWritten.Get(); kb != 0 {
		l.value("Lifetime writes", "%s", written(kb))
	}
}

func (l lister) owners(s superBits, names *Names) {
	owner := func(label, kind string, id uint16, find func(uint32) (string, bool)) {
		name, ok := "", false
		if find != nil {
			name, ok = find(uint32(id))
		}
		if !ok {
			name = "unknown"
		}
		l.value(label, "%d (%s %s)", id, kind, name)
	}
	owner("Reserved blocks uid", "user", s.DefResuid.Get(), names.User)
	owner("Reserved blocks gid", "group", s.DefResgid.Get(), names.Group)
}

func (l lister) inodes(s superBits) {
	if s.RevLevel.Get() < ondisk.DynamicRev {
		return
	}
	l.value("First inode", "%d", int32(s.FirstIno.Get()))
	l.value("Inode size", "%d", s.InodeSize.Get())
	l.number("Required extra isize", uint32(s.MinExtraIsize.Get()))
	l.number("Desired extra isize", uint32(s.WantExtraIsize.Get()))
}

// uuid writes a line with a UUID, unless it is all zeros.
func (l lister) uuid(label string, u [16]byte) {
	if u != [16]byte{} {
		l.value(label, "%s", UUIDString(u))
	}
}

// uuidOrNone is UUIDString; all zeros are "<none>".
func uuidOrNone(u [16]byte) string {
	if u == [16]byte{} {
		return "<none>"
	}
	return UUIDString(u)
}

// journal writes where the journal is, and what else belongs to directories
// and recovery.
func (l lister) journal(s superBits) {
	l.uuid("Journal UUID", s.JournalUUID)
	l.number("Journal inode", s.JournalInum.Get())
	if d := s.JournalDev.Get(); d != 0 {
		l.value("Journal device", "0x%04x", d)
	}
	l.number("First orphan inode", s.LastOrphan.Get())
	if h := s.DefHashVersion[0]; h != 0 || s.compat(ondisk.CompatDirIndex) {
		l.value("Default directory hash", "%s", HashName(h))
	}
	var seed [16]byte
	for i := range s.HashSeed {
		copy(seed[4*i:], s.HashSeed[i][:])
	}
	l.uuid("Directory Hash Seed", seed)
	switch t := s.JnlBackupType[0]; t {
	case 0:
	case 1:
		l.value("Journal backup", "inode blocks")
	default:
		l.value("Journal backup", "type %d", t)
	}
}

func (l lister) backups(s superBits) {
	if a, b := s.BackupBGs[0].Get(), s.BackupBGs[1].Get(); a != 0 || b != 0 {
		fmt.Fprintf(l, "%-26s", "Backup block groups:")
		for _, g := range []uint32{a, b} {
			if g != 0 {
				fmt.Fprintf(l, "%d ", g)
			}
		}
		l.WriteByte('\n')
	}
	if n := s.SnapshotInum.Get(); n != 0 {
		l.value("Snapshot inode", "%d", n)
		l.value("Snapshot ID", "%d", s.SnapshotID.Get())
		l.value("Snapshot reserved blocks", "%d", s.SnapshotRBlocks.Get())
	}
	l.number("Snapshot list head", s.SnapshotList.Get())
}

// errors writes the first and the last inconsistency that was found.
func (l lister) errors(s superBits, loc *time.Location) {
	l.number("FS Error count", s.ErrorCount.Get())
	record := func(which string, sec int64, fn []byte, line, ino uint32, block uint64, code byte) {
		if sec == 0 {
			return
		}
		fmt.Fprintf(l, "%-26s%s", which+" error time:", ctimeLine(sec, loc))
		l.value(which+" error function", "%s", Clean(Text(fn)))
		l.value(which+" error line #", "%d", line)
		l.number(which+" error inode #", ino)
		if block != 0 {
			l.value(which+" error block #", "%d", block)
		}
		if code != 0 {
			l.value(which+" error err", "%s", ErrcodeName(code))
		}
	}
	record("First", sec40(s.FirstErrorTime.Get(), s.FirstErrorTimeHi), s.FirstErrorFunc[:],
		s.FirstErrorLine.Get(), s.FirstErrorIno.Get(), s.FirstErrorBlock.Get(), s.FirstErrorErrcode[0])
	record("Last", sec40(s.LastErrorTime.Get(), s.LastErrorTimeHi), s.LastErrorFunc[:],
		s.LastErrorLine.Get(), s.LastErrorIno.Get(), s.LastErrorBlock.Get(), s.LastErrorErrcode[0])
}

// extras writes what single features have.
func (l lister) extras(s superBits) {
	if s.incompat(ondisk.IncompatMMP) {
		l.value("MMP block number", "%d", s.MMPBlock.Get())
		l.value("MMP update interval", "%d", s.MMPInterval.Get())
	}
	l.number("User quota inode", s.UsrQuotaInum.Get())
	l.number("Group quota inode", s.GrpQuotaInum.Get())
	l.number("Project quota inode", s.PrjQuotaInum.Get())
	if s.roCompat(ondisk.ROCompatMetadataCsum) {
		kind := "unknown"
		if s.ChecksumType[0] == 1 {
			kind = "crc32c"
		}
		l.value("Checksum type", "%s", kind)
		l.value("Checksum", "0x%08x", s.Checksum.Get())
	}
	l.uuid("Encryption PW Salt", s.EncryptPwSalt)
	if s.incompat(ondisk.IncompatCsumSeed) {
		l.value("Checksum seed", "0x%08x", s.ChecksumSeed.Get())
	}
	if s.incompat(ondisk.IncompatCasefold) {
		l.value("Character encoding", "%s", EncodingName(s.Encoding.Get()))
	}
	if s.compat(ondisk.CompatOrphanFile) {
		l.value("Orphan file inode", "%d", s.OrphanFileInum.Get())
	}
}
