package fsck

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// journal is where the journal was found.
type journal struct {
	cfg  jbd2.Config
	runs []extent
	sb   []byte // its superblock
	at   uint32 // block of the log that it is in
}

func (j *journal) super() *jbd2.Superblock { return endian.View[jbd2.Superblock](j.sb) }

// minJournal is the smallest journal, in blocks.
const minJournal = 1024

// checkJournal checks the journal and replays it if that is needed. A replay
// starts the check again.
func (c *checker) checkJournal() {
	s := c.sb
	has := s.HasCompat(ondisk.CompatHasJournal)
	if !has && s.JournalInum.Get() == 0 && (s.JournalDev.Get() != 0 || s.JournalUUID != [16]byte{}) {
		if c.fix(P0JournalHasJournal, at(0)) {
			s.JournalDev.Set(0)
			s.JournalUUID = [16]byte{}
			c.setSuper()
		}
	}
	if has && s.JournalInum.Get() != 0 && s.JournalUUID != [16]byte{} {
		// It is inside, so that the UUID of an external one says nothing.
		c.tell(P0MiscCorruptSuper, at(0))
		if c.canWrite() {
			s.JournalUUID = [16]byte{}
			c.setSuper()
		} else {
			c.invalid = true
		}
	}
	if s.JournalInum.Get() == 0 && s.JournalDev.Get() == 0 && s.JournalUUID == [16]byte{} || !has && s.JournalInum.Get() == 0 {
		if s.HasIncompat(ondisk.IncompatRecover) && !has {
			if c.fix(P0JournalRecoverSet, at(0)) {
				c.clearRecover()
				c.setSuper()
			}
		}
		return
	}
	j, err := c.findJournal()
	if err != nil {
		c.badJournal(err)
		return
	}
	if !has {
		if c.fix(P0JournalHasJournal, at(ondisk.Ino(s.JournalInum.Get()))) {
			if s.HasIncompat(ondisk.IncompatRecover) {
				c.fix(P0JournalRecoverSet, at(0))
			}
			s.JournalInum.Set(0)
			s.JournalDev.Set(0)
			s.JournalUUID = [16]byte{}
			c.clearRecover()
			c.setSuper()
			c.opts.Force = true
		} else if c.canWrite() {
			s.FeatureCompat.Set(s.FeatureCompat.Get() | ondisk.CompatHasJournal)
			c.setSuper()
		}
		return
	}
	if !c.checkJournalSuper(j) {
		return
	}
	start := j.super().Start.Get() != 0
	recover := s.HasIncompat(ondisk.IncompatRecover)
	if start && !recover {
		c.tell(P0JournalRecoveryOff, at(0))
		left := c.invalid
		run := P0JournalRun
		if c.opts.SbBlock != 0 { // a backup does not know
			run = P0JournalRunDefault
		}
		if c.fix(run, at(0)) {
			recover = true
		} else if c.fix(P0JournalReset, at(0)) {
			c.resetJournal(j)
			c.invalid = left
			c.opts.Force = true // what was in it is lost
		}
	}
	if !recover {
		c.journalErrno(j)
		c.backupJournal()
		return
	}
	if !c.canWrite() {
		c.noReplay = true
		c.res.JournalSkipped = true
		return
	}
	c.opts.Asker.Note("recovering journal")
	c.replayJournal(j)
	c.replayed = true
	c.abort(errRestart)
}

// findJournal returns where the journal lies.
func (c *checker) findJournal() (*journal, error) {
	s := c.sb
	j := &journal{}
	j.cfg = jbd2.Config{BlockSize: c.blockSize, UUID: s.UUID, Dev: c.dev}
	if ino := ondisk.Ino(s.JournalInum.Get()); ino != 0 {
		runs, n, err := c.journalInode(ino)
		if err != nil {
			return nil, err
		}
		j.runs = runs
		j.cfg.Blocks = n
		j.cfg.MapRun = func(l uint32) (uint64, uint32, error) {
			for _, e := range runs {
				if uint64(l) >= e.lblk && uint64(l) < e.lblk+e.n {
					d := uint64(l) - e.lblk
					return uint64(e.blk) + d, uint32(e.n - d), nil
				}
			}
			return 0, 0, fmt.Errorf("journal has no block %d: %w", l, ondisk.EUCLEAN)
		}
	} else {
		if c.opts.Journal == nil {
			c.tell(P0CantFindJournal, at(0))
			c.abort(fmt.Errorf("the external journal is needed: name it with -j"))
		}
		d, err := jbd2.OpenDevice(c.opts.Journal)
		var bad *jbd2.CorruptError
		if errors.As(err, &bad) && bad.Csum {
			if !c.fix(P0ExtJournalSuperCsum, at(0)) {
				c.opts.Journal = blockdev.NewOverlay(c.opts.Journal, 0) // it is not written
			}
			if err = c.sealJournalDevice(); err == nil {
				d, err = jbd2.OpenDevice(c.opts.Journal)
			}
		}
		if err != nil {
			c.tell(P0ExtJournalBadSuper, at(0))
			c.abort(fmt.Errorf("external journal: %w", err))
		}
		if d.UUID != s.JournalUUID {
			c.tell(P0JournalBadUUID, at(0))
			c.abort(errors.New("the external journal is another file system's"))
		}
		j.cfg.Dev, j.cfg.FSDev, j.cfg.Blocks, j.cfg.SuperBlock = c.opts.Journal, c.dev, d.Blocks, d.SuperBlock
		j.at = d.SuperBlock
	}
	j.sb = make([]byte, c.blockSize)
	if err := j.io(c, false); err != nil {
		return nil, err
	}
	if j.runs == nil && j.super().NrUsers.Get() > 1 {
		c.tell(P0JournalUnsuppMulti, at(0))
		c.abort(errors.New("the external journal is shared by several file systems"))
	}
	return j, nil
}

// sealJournalDevice sets the checksum of an external journal's own superblock.
func (c *checker) sealJournalDevice() error {
	b := make([]byte, ondisk.SuperSize)
	if _, err := c.opts.Journal.ReadAt(b, ondisk.SuperOffset); err != nil {
		return err
	}
	s := endian.View[ondisk.Super](b)
	s.Checksum.Set(ondisk.SuperCsum(s))
	if _, err := c.opts.Journal.WriteAt(b, ondisk.SuperOffset); err != nil {
		return err
	}
	return c.opts.Journal.Sync()
}

// io reads or writes the journal's superblock.
func (j *journal) io(c *checker, write bool) error {
	dev, blk := j.cfg.Dev, uint64(j.at)
	if j.runs != nil {
		blk = uint64(lookup(j.runs, 0))
	}
	if write {
		c.markDirty()
		if _, err := dev.WriteAt(j.sb, int64(blk)<<c.blockBits); err != nil {
			c.abort(fmt.Errorf("write journal: %w", err))
		}
		return dev.Sync()
	}
	_, err := dev.ReadAt(j.sb, int64(blk)<<c.blockBits)
	return err
}

var errJournal = errors.New("no usable journal inode")

// journalInode returns the blocks of the journal: of its inode, or of the copy
// of its map in the superblock if that is damaged.
func (c *checker) journalInode(ino ondisk.Ino) ([]extent, uint32, error) {
	if ino != ondisk.JournalIno && ino < c.firstIno || uint32(ino) > c.inodes {
		return nil, 0, errJournal
	}
	r, err := c.inode(ino)
	if err == nil {
		var runs []extent
		var n uint32
		if runs, n, err = c.journalMap(r); err == nil {
			return runs, n, nil
		}
	}
	s := c.sb
	if s.JnlBackupType[0] != 1 || s.JnlBlocks[16].Get() == 0 {
		return nil, 0, errJournal
	}
	b := make(ondisk.RawInode, c.inodeSize)
	b.Base().Mode.Set(ondisk.ModeReg | 0o600)
	b.Base().LinksCount.Set(1)
	for i := range 15 {
		copy(b.Base().Block[4*i:], s.JnlBlocks[i][:])
	}
	if b.Base().Block[0] == 0x0a && b.Base().Block[1] == 0xf3 {
		b.Base().Flags.Set(ondisk.FlagExtents)
	}
	b.Base().SizeHi = s.JnlBlocks[15]
	b.Base().SizeLo = s.JnlBlocks[16]
	runs, n, err := c.journalMap(b)
	if err != nil {
		return nil, 0, err
	}
	c.jnlBackup = b
	return runs, n, nil
}

// journalMap returns the blocks of inode r as those of a journal.
func (c *checker) journalMap(r ondisk.RawInode) ([]extent, uint32, error) {
	b := r.Base()
	n := uint64(r.Size(false)) >> c.blockBits
	if b.LinksCount.Get() == 0 || b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg || b.Flags.Get()&ondisk.FlagEncrypt != 0 ||
		n < minJournal || n > uint64(c.blocks) || n > 1<<31 {
		return nil, 0, errJournal
	}
	runs, _, err := c.runs(r)
	if err != nil {
		return nil, 0, err
	}
	next := uint64(0)
	for _, e := range runs {
		if e.lblk != next && next < n {
			return nil, 0, errJournal
		}
		next = e.lblk + e.n
	}
	if next < n {
		return nil, 0, errJournal
	}
	return runs, uint32(n), nil
}

// badJournal offers to do without a journal that cannot be used.
func (c *checker) badJournal(error) {
	s := c.sb
	p := at(ondisk.Ino(s.JournalInum.Get()))
	if !c.fix(P0JournalBadInode, p) {
		c.noReplay = true
		return
	}
	s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatHasJournal)
	c.clearRecover()
	s.JournalInum.Set(0)
	s.JournalDev.Set(0)
	s.JournalUUID = [16]byte{}
	s.JnlBackupType[0] = 0
	for i := range s.JnlBlocks {
		s.JnlBlocks[i].Set(0)
	}
	c.setSuper()
	c.opts.Force = true
	c.journalGone = true
}

func (c *checker) clearRecover() {
	c.sb.FeatureIncompat.Set(c.sb.FeatureIncompat.Get() &^ ondisk.IncompatRecover)
}

// checkJournalSuper checks the journal's superblock; false if nothing further
// can be done with the journal.
func (c *checker) checkJournalSuper(j *journal) bool {
	js := j.super()
	p := at(ondisk.Ino(c.sb.JournalInum.Get()))
	corrupt := func() bool {
		if c.fix(P0JournalBadSuper, p) {
			c.newJournalSuper(j)
			c.clearRecover()
			c.setSuper()
			c.opts.Force = true
			return true
		}
		c.noReplay = true
		return false
	}
	if js.Header.Magic.Get() != jbd2.Magic {
		c.badJournal(errJournal)
		if c.journalGone {
			// The inode is there still, for pass 1 to clear.
			c.fix(P0JournalHasJournal, p)
		}
		return false
	}
	switch js.Header.BlockType.Get() {
	case jbd2.SuperblockV1:
		// What lies beyond the old structure is of no meaning.
		if x := j.sb[36:1024]; nonzero(x) {
			if c.canWrite() {
				clear(x)
				if err := j.io(c, true); err != nil {
					c.abort(err)
				}
				c.changed = true
			}
			c.tell(P0ClearV2Journal, at(0))
		}
	case jbd2.SuperblockV2:
		if js.NrUsers.Get() > 1 && j.runs != nil {
			if c.canWrite() {
				clear(j.sb[36:1024])
				c.sealJournal(j)
			}
			c.tell(P0ClearV2Journal, at(0))
		}
		const known = jbd2.IncompatRevoke | jbd2.Incompat64Bit | jbd2.IncompatAsyncCommit | jbd2.IncompatCsumV2 |
			jbd2.IncompatCsumV3 | jbd2.IncompatFastCommit
		if x := js.FeatureROComp.Get(); x != 0 {
			if c.fix(P0JournalUnsuppRO, p) {
				c.abort(ErrAborted)
			}
			return false
		}
		if x := js.FeatureIncomp.Get() &^ known; x != 0 {
			if c.fix(P0JournalUnsuppIn, p) {
				c.abort(ErrAborted)
			}
			return false
		}
	case jbd2.DescriptorBlock, jbd2.CommitBlock, jbd2.RevokeBlock:
		return corrupt()
	default:
		if c.fix(P0JournalUnsuppVer, p) {
			c.abort(ErrAborted)
		}
		return false
	}
	if js.BlockSize.Get() != uint32(c.blockSize) || js.MaxLen.Get() > j.cfg.Blocks ||
		js.First.Get() <= j.at || js.First.Get() >= js.MaxLen.Get() {
		return corrupt()
	}
	if _, err := jbd2.Open(j.cfg); err != nil {
		return corrupt()
	}
	return true
}

func nonzero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != 0 {
			return true
		}
	}
	for _, x := range b {
		if x != 0 {
			return true
		}
	}
	return false
}

func (c *checker) sealJournal(j *journal) {
	js := j.super()
	if js.Header.BlockType.Get() == jbd2.SuperblockV2 && js.FeatureIncomp.Get()&(jbd2.IncompatCsumV2|jbd2.IncompatCsumV3) != 0 {
		js.ChecksumType = jbd2.ChecksumCRC32C
		js.Checksum.Set(0)
		js.Checksum.Set(ondisk.Crc32c(^uint32(0), j.sb[:1024]))
	}
	if err := j.io(c, true); err != nil {
		c.abort(err)
	}
	c.changed = true
}

// newJournalSuper writes a new superblock of an empty journal.
func (c *checker) newJournalSuper(j *journal) {
	o := jbd2.CreateOptions{UUID: c.sb.UUID, Sequence: jbd2.Tid(c.randomTid())}
	j.sb = jbd2.NewSuperblock(c.blockSize, j.cfg.Blocks, j.at, o)
	c.sealJournal(j)
}

// resetJournal makes the journal empty. Its numbers go on after those of the
// transactions that lie in it: a replay must never take them for what follows a
// new one.
func (c *checker) resetJournal(j *journal) {
	if !c.canWrite() {
		return
	}
	c.markDirty()
	l, err := jbd2.Open(j.cfg)
	if err != nil {
		j.super().Start.Set(0)
		j.super().Sequence.Set(c.randomTid())
		c.sealJournal(j)
		return
	}
	if err = l.Clear(); err == nil {
		err = j.io(c, false)
	}
	if err != nil {
		c.abort(fmt.Errorf("empty the journal: %w", err))
	}
	c.changed = true
}

// randomTid returns a number for the next transaction of a log of which nobody
// knows what numbers lie in it: that a random one meets them is not to be expected.
func (c *checker) randomTid() uint32 {
	var n [4]byte
	c.random(n[:])
	return binary.LittleEndian.Uint32(n[:])
}

// journalErrno takes over an error that the journal recorded.
func (c *checker) journalErrno(j *journal) {
	if j.super().Errno.Get() == 0 {
		return
	}
	c.opts.Force = true
	if c.canWrite() {
		c.sb.State.Set(c.sb.State.Get() | ondisk.StateError)
		j.super().Errno.Set(0)
		c.sealJournal(j)
		c.setSuper()
	}
}

// replayJournal writes home what the journal holds, and empties it.
func (c *checker) replayJournal(j *journal) {
	state := c.sb.State.Get()
	var s ondisk.Super
	jl, err := jbd2.Open(j.cfg)
	var stats jbd2.RecoverStats
	if err == nil {
		dry := &replayer{c: c}
		if c.sb.HasCompat(ondisk.CompatFastCommit) {
			if probe, e := jbd2.Open(j.cfg); e == nil {
				_, _ = probe.Recover(dry)
			}
		}
		if dry.fc > 0 && c.replayFastCommits() {
			if c.readAt(endian.Bytes(&s), ondisk.SuperOffset) == nil && s.State.Get() == state&^ondisk.StateValid {
				copy(c.sbRaw[:], endian.Bytes(&s))
				c.sb.State.Set(state)
				c.writeSuper()
			}
			return
		}
		stats, err = jl.Recover(&replayer{c: c, write: true})
	}
	_ = c.readAt(endian.Bytes(&s), ondisk.SuperOffset)
	if s.Magic.Get() == ondisk.SuperMagic && s.InodesCount == c.sb.InodesCount && s.BlocksCountLo == c.sb.BlocksCountLo {
		copy(c.sbRaw[:], endian.Bytes(&s))
		if s.State.Get() == state&^ondisk.StateValid {
			c.sb.State.Set(state) // what is missing was taken off by this run
		}
	}
	if err != nil {
		if stats.BadBlocks > 0 || !stats.Failed {
			c.fixed = true
		}
		if stats.Failed {
			p := at(0)
			p.Text = err.Error()
			c.tell(P0JournalBadCsum, p)
		}
		c.sb.State.Set(c.sb.State.Get()&^ondisk.StateValid | ondisk.StateError)
	}
	c.sync()
	if err != nil {
		c.resetJournal(j)
	}
	if e := j.io(c, false); e == nil && j.super().Header.Magic.Get() == jbd2.Magic {
		if err == nil {
			j.super().Sequence.Set(uint32(stats.End) + 1)
		}
		if j.super().Errno.Get() != 0 {
			c.sb.State.Set(c.sb.State.Get() | ondisk.StateError)
			j.super().Errno.Set(0)
		}
		j.super().Start.Set(0)
		c.sealJournal(j)
	}
	c.clearRecover()
	c.changed = true
	c.writeSuper()
}

// replayFastCommits replays a log with fast commits, which takes a file system
// that can be worked with.
func (c *checker) replayFastCommits() bool {
	c.markDirty()
	fs, err := ext2fs.Open(c.dev, ext2fs.Options{Journal: c.opts.Journal})
	if ino := ondisk.Ino(c.sb.JournalInum.Get()); err != nil && ino != 0 {
		// The journal was found: what else its inode says means nothing.
		c.editInode(ino, func(r ondisk.RawInode) {
			b := r.Base()
			b.Mode.Set(ondisk.ModeReg | 0o600)
			b.Flags.Set(b.Flags.Get() & ondisk.FlagExtents)
			b.LinksCount.Set(1)
			b.Dtime.Set(0)
			b.SizeHi.Set(0)
			r.SetFileACL(0)
			if c.inodeSize > ondisk.GoodOldInodeSz {
				clear(r[ondisk.GoodOldInodeSz:])
			}
		})
		fs, err = ext2fs.Open(c.dev, ext2fs.Options{Journal: c.opts.Journal})
	}
	if err != nil {
		return false
	}
	if err := fs.Close(); err != nil {
		c.abort(fmt.Errorf("replaying fast commits: %w", err))
	}
	c.changed = true
	return true
}

// replayer is where a replay writes to, or what it would write is counted.
type replayer struct {
	c     *checker
	write bool
	fc    int
}

// Check implements jbd2.Replayer.
func (r *replayer) Check(blk uint64) error {
	if blk >= uint64(r.c.blocks) || ondisk.Fsblk(blk) < r.c.firstData {
		return ondisk.Corrupt("log", 0, "block %d is not in the file system", blk)
	}
	return nil
}

// Write implements jbd2.Replayer.
func (r *replayer) Write(blk uint64, data []byte) error {
	if !r.write {
		return nil
	}
	r.c.markDirty()
	_, err := r.c.dev.WriteAt(data, int64(blk)<<r.c.blockBits)
	return err
}

// FastCommit implements jbd2.Replayer.
func (r *replayer) FastCommit(uint16, []byte) error { r.fc++; return nil }

// Sync implements jbd2.Replayer.
func (r *replayer) Sync() error {
	if !r.write {
		return nil
	}
	return r.c.dev.Sync()
}

// backupJournal keeps a copy of the journal inode's map in the superblock.
func (c *checker) backupJournal() {
	s := c.sb
	ino := ondisk.Ino(s.JournalInum.Get())
	if ino == 0 || !s.HasCompat(ondisk.CompatHasJournal) {
		return
	}
	r, err := c.inode(ino)
	if err != nil {
		return
	}
	if c.jnlBackup != nil { // the inode is what is damaged
		if c.canWrite() {
			b := c.jnlBackup
			r.Base().Mode.Set(b.Base().Mode.Get())
			r.Base().LinksCount.Set(1)
			r.Base().Flags.Set(b.Base().Flags.Get())
			r.Base().Block = b.Base().Block
			r.Base().SizeLo, r.Base().SizeHi = b.Base().SizeLo, b.Base().SizeHi
			r.Base().Dtime.Set(0)
			c.opts.Asker.Note(fmt.Sprintf("the journal inode, %d, is damaged: it is made anew from its copy in the superblock", ino))
			c.writeInode(ino, r)
			c.fixed, c.opts.Force = true, true
		}
		return
	}
	if c.sameJournalMap(r) {
		return
	}
	if c.canWrite() {
		c.copyJournalMap()
	}
	if c.replayed {
		c.noFix = true
	}
	c.tell(P0BackupJournal, at(0))
	c.noFix = false
}

// copyJournalMap puts the map of the journal inode into the superblock.
func (c *checker) copyJournalMap() {
	s := c.sb
	r, err := c.inode(ondisk.Ino(s.JournalInum.Get()))
	if err != nil {
		return
	}
	for i := range 15 {
		copy(s.JnlBlocks[i][:], r.Base().Block[4*i:])
	}
	s.JnlBlocks[15], s.JnlBlocks[16] = r.Base().SizeHi, r.Base().SizeLo
	s.JnlBackupType[0] = 1
	c.setSuper()
}

// keepJournalMap makes the copy of the journal inode's map follow what the passes
// have changed.
func (c *checker) keepJournalMap() {
	s := c.sb
	ino := ondisk.Ino(s.JournalInum.Get())
	if r, err := c.inode(ino); err == nil && c.canWrite() && c.changed && s.HasCompat(ondisk.CompatHasJournal) && s.JnlBackupType[0] == 1 && !c.sameJournalMap(r) {
		c.copyJournalMap()
	}
}

// sameJournalMap tells whether the superblock's copy of the journal inode's map is r's.
func (c *checker) sameJournalMap(r ondisk.RawInode) bool {
	s := c.sb
	same := s.JnlBackupType[0] == 1 && s.JnlBlocks[15] == r.Base().SizeHi && s.JnlBlocks[16] == r.Base().SizeLo
	for i := 0; same && i < 15; i++ {
		same = string(s.JnlBlocks[i][:]) == string(r.Base().Block[4*i:4*i+4])
	}
	return same
}

// moveJournal moves a journal that is a visible file to the reserved inode.
func (c *checker) moveJournal() {
	s := c.sb
	from := ondisk.Ino(s.JournalInum.Get())
	if !s.HasCompat(ondisk.CompatHasJournal) || from < c.firstIno || !c.canWrite() || c.invalid {
		return
	}
	for _, name := range []string{".journal", "journal", ".journal.dat", "journal.dat"} {
		if ino, ok := c.lookup(ondisk.RootIno, name); !ok || ino != from {
			continue
		}
		r, err := c.inode(from)
		to, err2 := c.inode(ondisk.JournalIno)
		if err != nil || err2 != nil || to.Base().LinksCount.Get() != 0 || r.Base().Flags.Get()&ondisk.FlagExtents != 0 {
			break
		}
		c.noFix = true
		c.tell(P0MoveJournal, at(from))
		c.noFix = false
		n := append(ondisk.RawInode(nil), r...)
		n.Base().LinksCount.Set(1)
		n.Base().Flags.Set(n.Base().Flags.Get() &^ (ondisk.FlagImmutable | ondisk.FlagAppend))
		n.Base().Mode.Set(ondisk.ModeReg | 0o600)
		// Until the superblock names the new inode, both have the map; the old one counts.
		c.writeInode(ondisk.JournalIno, n)
		c.sync()
		s.JournalInum.Set(uint32(ondisk.JournalIno))
		c.copyJournalMap()
		c.writeSuper()
		c.unlinkFrom(ondisk.RootIno, from)
		clear(r)
		c.writeInode(from, r)
		c.inodeUsed.set(uint64(from))
		c.freeInode(from, false)
		c.syncInodeBitmap(from)
		return
	}
}

// journalAgain starts the check again if what it repaired has left the journal
// inode without the blocks of a journal.
func (c *checker) journalAgain() {
	s := c.sb
	ino := ondisk.Ino(s.JournalInum.Get())
	if ino == 0 || !s.HasCompat(ondisk.CompatHasJournal) || !c.canWrite() || c.noReplay || c.restart {
		return
	}
	r, err := c.inode(ino)
	if err != nil {
		return
	}
	if _, _, err := c.journalMap(r); err != nil {
		s.JnlBackupType[0] = 0 // it names the blocks that were given up
		for i := range s.JnlBlocks {
			s.JnlBlocks[i].Set(0)
		}
		c.setSuper()
		c.restart = true
	}
}
