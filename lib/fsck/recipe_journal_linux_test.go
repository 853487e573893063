package fsck_test

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// journal changes the journal's superblock.
func (e *edit) journal(f func(s *jbd2.Superblock)) {
	b := e.block(e.bmap(ondisk.JournalIno, 0))
	s := endian.View[jbd2.Superblock](b)
	f(s)
	if s.FeatureIncomp.Get()&(jbd2.IncompatCsumV2|jbd2.IncompatCsumV3) != 0 {
		s.Checksum.Set(0)
		s.Checksum.Set(ondisk.Crc32c(^uint32(0), b[:1024]))
	}
}

// findRoom returns where a directory's block has room for a name.
func findRoom(b []byte, name string) int {
	off, _, _, _ := ondisk.FindRoom(b, []byte(name), len(b))
	return off
}

// orphan makes a file one without links, on the list of orphans.
func (e *edit) orphan(path string) {
	i := e.ino(path)
	next := e.sb.LastOrphan.Get()
	e.super(func(s *ondisk.Super) { s.LastOrphan.Set(uint32(i)) })
	e.inode(i, func(r ondisk.RawInode) { r.Base().LinksCount.Set(0); r.Base().Dtime.Set(next) })
	e.name(path, func(d []byte) { binary.LittleEndian.PutUint32(d, 0) })
}

// orphanBlock changes the first block of the orphan file.
func (e *edit) orphanBlock(f func(b []byte)) {
	ino := ondisk.Ino(e.sb.OrphanFileInum.Get())
	blk := e.bmap(ino, 0)
	b := e.block(blk)
	f(b)
	ondisk.SealOrphanBlock(b, e.own(ino), blk)
}

func (e *edit) orphanPresent() {
	e.super(func(s *ondisk.Super) { s.FeatureROCompat.Set(s.FeatureROCompat.Get() | ondisk.ROCompatOrphanPresent) })
}

// recipesJournal damage journals and what tells of orphans.
var recipesJournal = []recipe{
	{name: "journal inode number", base: "ext4", codes: []fsck.Code{fsck.P0JournalBadInode, fsck.P6RecreateJournal}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.JournalInum.Set(5) })
	}},
	{name: "journal superblock", base: "ext4", codes: []fsck.Code{fsck.P0JournalBadSuper}, edit: func(e *edit) {
		e.journal(func(s *jbd2.Superblock) { s.MaxLen.Set(1 << 30) })
	}},
	{name: "journal magic", base: "ext4", edit: func(e *edit) { e.journal(func(s *jbd2.Superblock) { s.Header.Magic.Set(1) }) }},
	{name: "journal without the feature", base: "ext4", codes: []fsck.Code{fsck.P0JournalHasJournal}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatHasJournal) })
	}},
	{name: "recovery without a journal", base: "nocsum", codes: []fsck.Code{fsck.P0JournalRecoverSet}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.FeatureIncompat.Set(s.FeatureIncompat.Get() | ondisk.IncompatRecover) })
	}},
	{name: "log without recovery", base: "ext4", codes: []fsck.Code{fsck.P0JournalRecoveryOff, fsck.P0JournalRun}, edit: func(e *edit) {
		e.journal(func(s *jbd2.Superblock) { s.Start.Set(s.First.Get()) })
	}},
	{name: "journal ro feature", base: "ext4", codes: []fsck.Code{fsck.P0JournalUnsuppRO}, refused: true, edit: func(e *edit) {
		e.journal(func(s *jbd2.Superblock) { s.FeatureROComp.Set(8) })
	}},
	{name: "journal incompat feature", base: "ext4", codes: []fsck.Code{fsck.P0JournalUnsuppIn}, refused: true, edit: func(e *edit) {
		e.journal(func(s *jbd2.Superblock) { s.FeatureIncomp.Set(s.FeatureIncomp.Get() | 0x8000) })
	}},
	{name: "journal of a later version", base: "ext4", codes: []fsck.Code{fsck.P0JournalUnsuppVer}, refused: true, edit: func(e *edit) {
		e.journal(func(s *jbd2.Superblock) { s.Header.BlockType.Set(7) })
	}},
	{name: "journal superblock of two versions", base: "ext3", codes: []fsck.Code{fsck.P0ClearV2Journal}, edit: func(e *edit) {
		e.journal(func(s *jbd2.Superblock) { s.Header.BlockType.Set(jbd2.SuperblockV1); s.FeatureIncomp.Set(1) })
	}},
	{name: "no copy of the journal inode", base: "ext4", codes: []fsck.Code{fsck.P0BackupJournal}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.JnlBackupType[0] = 0 })
	}},
	{name: "journal inode lost", base: "ext4", differs: "it does not see that the copy of the inode in the superblock has extents", edit: func(e *edit) {
		e.inode(ondisk.JournalIno, func(r ondisk.RawInode) { clear(r) })
	}},
	{name: "UUID beside a journal", base: "ext4", gaveUp: true, codes: []fsck.Code{fsck.P0MiscCorruptSuper}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.JournalUUID[3] = 5 })
	}},
	{name: "visible journal", base: "ext3", codes: []fsck.Code{fsck.P0MoveJournal}, edit: func(e *edit) {
		i := e.ino("/empty")
		from := append(ondisk.RawInode(nil), e.raw(ondisk.JournalIno)...)
		e.inode(i, func(r ondisk.RawInode) { copy(r, from) })
		e.inode(ondisk.JournalIno, func(r ondisk.RawInode) { clear(r) })
		e.super(func(s *ondisk.Super) { s.JournalInum.Set(uint32(i)); s.JnlBackupType[0] = 0 })
		e.name("/hard2", func(d []byte) { setIno(d, 0) })
		e.name("/empty", func(d []byte) { setIno(d, 0) })
		e.file("/hard", func(r ondisk.RawInode) { r.Base().LinksCount.Set(1) })
		e.dir("/", 0, func(b []byte) {
			ondisk.InsertDirent(b, findRoom(b, ".journal"), e.bs, []byte(".journal"), i, ondisk.FTReg)
		})
	}},
	{name: "orphans", base: "ext4", codes: []fsck.Code{fsck.P0OrphanClear}, edit: func(e *edit) { e.orphan("/file"); e.orphan("/frag"); e.orphan("/attr") }},
	{name: "orphan that is cut", base: "ext4", codes: []fsck.Code{fsck.P0OrphanClear}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.LastOrphan.Set(uint32(e.ino("/file"))) })
		e.file("/file", func(r ondisk.RawInode) { r.SetSize(1500) })
	}},
	{name: "orphan with an illegal block", base: "ext3", codes: []fsck.Code{fsck.P0OrphanIllegalBlock}, edit: func(e *edit) {
		e.orphan("/file")
		e.pointers("/file", func(p []endian.LE32) { p[1].Set(1 << 30) })
	}},
	{name: "orphan with a free block", base: "ext3", differs: "it stops in the middle of an orphan", codes: []fsck.Code{fsck.P0OrphanClearedBlock}, edit: func(e *edit) {
		e.orphan("/file")
		b := e.bmap(e.ino("/file"), 1)
		e.bits(0, func(x []byte) { x[(b-1)/8] &^= 1 << ((b - 1) % 8) })
	}},
	{name: "orphan list head", base: "ext4", codes: []fsck.Code{fsck.P0OrphanIllegalHead}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.LastOrphan.Set(100000) })
	}},
	{name: "orphan list broken", base: "ext4", differs: "it does not free an orphan of which the next one is unknown", codes: []fsck.Code{fsck.P0OrphanIllegalInode}, edit: func(e *edit) {
		e.orphan("/file")
		e.file("/file", func(r ondisk.RawInode) { r.Base().Dtime.Set(100000) })
	}},
	{name: "orphan file", base: "orphans", differs: "it leaves names of freed inodes in the file until the end of the check", codes: []fsck.Code{fsck.P0OrphanClear}, edit: func(e *edit) {
		e.orphan("/file")
		e.super(func(s *ondisk.Super) { s.LastOrphan.Set(0) })
		e.orphanBlock(func(b []byte) { binary.LittleEndian.PutUint32(b, uint32(e.ino("/file"))) })
		e.orphanPresent()
	}},
	{name: "orphan file hole", base: "orphans", codes: []fsck.Code{0x000052, 0x060010, fsck.P6OrphanCorrupt}, edit: func(e *edit) {
		e.inode(ondisk.Ino(e.sb.OrphanFileInum.Get()), func(r ondisk.RawInode) { r.SetSize(r.Size(false) + 4*1024) })
		e.orphanPresent()
	}},
	{name: "orphan file magic", base: "orphans", codes: []fsck.Code{0x000053, fsck.P6OrphanCorrupt}, edit: func(e *edit) {
		e.orphanBlock(func(b []byte) { b[len(b)-8] ^= 1 })
		e.orphanPresent()
	}},
	{name: "orphan file checksum", base: "orphans", codes: []fsck.Code{0x000054, fsck.P6OrphanCorrupt}, edit: func(e *edit) {
		e.block(e.bmap(ondisk.Ino(e.sb.OrphanFileInum.Get()), 0))[1020] ^= 1
		e.orphanPresent()
	}},
	{name: "orphan file size", base: "orphans", codes: []fsck.Code{0x000055, 0x06000f}, edit: func(e *edit) {
		e.inode(ondisk.Ino(e.sb.OrphanFileInum.Get()), func(r ondisk.RawInode) { r.SetSize(r.Size(false) - 100) })
		e.orphanPresent()
	}},
	{name: "orphan file mode", base: "orphans", codes: []fsck.Code{fsck.P1OrphanFileBadMode}, edit: func(e *edit) {
		e.inode(ondisk.Ino(e.sb.OrphanFileInum.Get()), func(r ondisk.RawInode) { r.Base().Mode.Set(ondisk.ModeDir) })
	}},
	{name: "orphan file not empty", base: "orphans", codes: []fsck.Code{fsck.P6OrphanNotClean}, edit: func(e *edit) {
		e.orphanBlock(func(b []byte) { binary.LittleEndian.PutUint32(b, uint32(e.ino("/file"))) })
	}},
	{name: "orphan_present", base: "orphans", differs: "the flag goes with the last orphan, and without a word", codes: []fsck.Code{fsck.P6OrphanPresent}, edit: (*edit).orphanPresent},
	{name: "orphan_present alone", base: "ext4", codes: []fsck.Code{fsck.P6OrphanPresentOnly}, edit: (*edit).orphanPresent},
	{name: "orphan file without journal", base: "orphans", differs: "it leaves its inode and bitmaps as they are told of after the end", codes: []fsck.Code{fsck.P6OrphanNoJournal}, edit: func(e *edit) {
		e.inode(ondisk.JournalIno, func(r ondisk.RawInode) { clear(r) })
		e.super(func(s *ondisk.Super) {
			s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatHasJournal)
			s.JournalInum.Set(0)
		})
	}},
	{name: "orphan file gone", base: "orphans", differs: "it makes no other", codes: []fsck.Code{fsck.P6OrphanCorrupt}, edit: func(e *edit) {
		e.inode(ondisk.Ino(e.sb.OrphanFileInum.Get()), func(r ondisk.RawInode) { clear(r) })
	}},
	{name: "leftovers of the orphan list", base: "ext4", codes: []fsck.Code{fsck.P1LowDtime}, edit: func(e *edit) {
		e.orphan("/file")
		e.file("/file", func(r ondisk.RawInode) { r.Base().Dtime.Set(20) })
		e.super(func(s *ondisk.Super) { s.LastOrphan.Set(0) })
	}},
	{name: "external journal", base: "ext4", codes: []fsck.Code{fsck.P5BlockRangeUnused}, edit: outside, journal: func(*edit) {}},
	{name: "external journal missing", base: "ext4", refused: true, codes: []fsck.Code{fsck.P0CantFindJournal}, edit: outside},
	{name: "external journal checksum", base: "ext4", codes: []fsck.Code{fsck.P0ExtJournalSuperCsum}, edit: outside, journal: func(e *edit) { e.sb.Checksum.Set(1) }},
	{name: "external journal superblock", base: "ext4", refused: true, codes: []fsck.Code{fsck.P0ExtJournalBadSuper}, edit: outside, journal: func(e *edit) { e.super(func(s *ondisk.Super) { s.Magic.Set(1) }) }},
	{name: "external journal of others", base: "ext4", refused: true, codes: []fsck.Code{fsck.P0JournalBadUUID}, edit: outside, journal: func(e *edit) { e.super(func(s *ondisk.Super) { s.UUID[0]++ }) }},
	{name: "external journal of several", base: "ext4", refused: true, codes: []fsck.Code{fsck.P0JournalUnsuppMulti}, edit: outside, journal: func(e *edit) {
		endian.View[jbd2.Superblock](e.block(2)).NrUsers.Set(3)
	}},
	{name: "recovery that a backup does not know of", base: "ext4", differs: "it goes by the totals of the backup", codes: []fsck.Code{fsck.P0JournalRunDefault}, edit: func(e *edit) {
		e.journal(func(s *jbd2.Superblock) { s.Start.Set(s.First.Get()) })
	}, opts: func(o *fsck.Options) { o.SbBlock, o.SbSize = 2049, 1024 }, args: []string{"-b", "2049", "-B", "1024"}},
	{name: "visible quota file", base: "quota", differs: "it leaves the inode to be connected, and looks at its names before it has moved", codes: []fsck.Code{fsck.P0HideQuota}, edit: func(e *edit) {
		i := e.ino("/empty")
		from := append(ondisk.RawInode(nil), e.raw(ondisk.UsrQuotaIno)...)
		e.inode(i, func(r ondisk.RawInode) { copy(r, from) })
		e.inode(ondisk.UsrQuotaIno, func(r ondisk.RawInode) { clear(r) })
		e.super(func(s *ondisk.Super) { s.UsrQuotaInum.Set(uint32(i)) })
	}},
	{name: "quota", base: "quota", codes: []fsck.Code{fsck.P6UpdateQuotas}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.SetUID(77); r.SetGID(78); r.SetProjid(79) })
	}},
	{name: "quota inode mode", base: "quota", codes: []fsck.Code{fsck.P1QuotaBadMode}, edit: func(e *edit) {
		e.inode(ondisk.UsrQuotaIno, func(r ondisk.RawInode) { r.Base().Mode.Set(ondisk.ModeDir) })
	}},
	{name: "quota inode unused", base: "quota", codes: []fsck.Code{fsck.P1QuotaNotClear}, edit: func(e *edit) {
		e.super(func(s *ondisk.Super) { s.UsrQuotaInum.Set(0) })
	}},
	{name: "quota file", base: "quota", differs: "it prints an error that counts as no problem", codes: []fsck.Code{fsck.P6UpdateQuotas}, edit: func(e *edit) { e.block(e.bmap(ondisk.UsrQuotaIno, 0))[0] ^= 1 }},
}
