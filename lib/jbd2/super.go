package jbd2

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
)

// Info is what a journal's superblock says.
type Info struct {
	Version       int // 1 or 2
	BlockSize     int // bytes
	Blocks        uint32
	First         uint32 // first block of the log
	Last          uint32 // the block after the log's last
	FCBlocks      uint32 // fast commit blocks, at the end; 0 without the feature
	Start         uint32 // first block to recover; 0 if the log is empty
	Sequence      Tid    // expected at Start
	Errno         int32  // of an abort, negative; 0 if none
	Features      Features
	ChecksumType  byte
	UUID          [16]byte
	Users         [][16]byte // of the file systems that use the journal
	NeedsRecovery bool
}

// Info returns what the superblock in memory says.
func (j *Journal) Info() Info {
	if j.none {
		return Info{BlockSize: j.bsize}
	}
	j.sbMu.Lock()
	defer j.sbMu.Unlock()
	sb := j.super()
	in := Info{
		Version:       int(sb.Header.BlockType.Get()) - 2,
		BlockSize:     j.bsize,
		Blocks:        sb.MaxLen.Get(),
		First:         j.first,
		Last:          j.last,
		Start:         sb.Start.Get(),
		Sequence:      Tid(sb.Sequence.Get()),
		Errno:         int32(sb.Errno.Get()),
		NeedsRecovery: sb.Start.Get() != 0,
	}
	if in.Version == 2 {
		in.Features = Features{sb.FeatureCompat.Get(), sb.FeatureROComp.Get(), sb.FeatureIncomp.Get()}
		in.ChecksumType = sb.ChecksumType
		in.UUID = sb.UUID
		n := min(sb.NrUsers.Get(), uint32(len(sb.Users)))
		in.Users = append(in.Users, sb.Users[:n]...)
	}
	if in.Features.Incompat&IncompatFastCommit != 0 {
		in.FCBlocks = j.total - j.last
	}
	return in
}

// super returns the superblock, in place. sbMu is held, or j is not shared yet.
func (j *Journal) super() *Superblock { return endian.View[Superblock](j.sb) }

// readSuper reads and checks the superblock.
func (j *Journal) readSuper() error {
	j.sb = blockdev.AlignedBuf(j.bsize, j.bsize)
	at := j.cfg.SuperBlock
	if err := j.readLog(at, j.sb); err != nil {
		return err
	}
	sb := j.super()
	bad := func(why string, args ...any) error {
		return corrupt("journal superblock", at, why, args...)
	}
	if m := sb.Header.Magic.Get(); m != Magic {
		return bad("magic %#x", m)
	}
	version := sb.Header.BlockType.Get()
	if version != SuperblockV1 && version != SuperblockV2 {
		return bad("block type %d", version)
	}
	if n := sb.BlockSize.Get(); n != uint32(j.bsize) {
		return bad("block size %d, not %d", n, j.bsize)
	}
	j.total = sb.MaxLen.Get()
	if j.total > j.cfg.Blocks {
		return bad("log of %d blocks in a file of %d", j.total, j.cfg.Blocks)
	}
	j.first, j.last = sb.First.Get(), j.total
	if j.first <= at || j.first >= j.total {
		return bad("first block %d of %d", j.first, j.total)
	}
	j.v1 = version == SuperblockV1
	if !j.v1 {
		if x := sb.FeatureIncomp.Get() &^ knownIncompat; x != 0 {
			return &UnsupportedError{"incompat", x}
		}
		if x := sb.FeatureROComp.Get(); x != 0 {
			return &UnsupportedError{"ro_compat", x}
		}
		v2, v3 := j.has(IncompatCsumV2), j.has(IncompatCsumV3)
		switch {
		case v2 && v3:
			return bad("checksums v2 and v3 at once")
		case (v2 || v3) && sb.FeatureCompat.Get()&CompatChecksum != 0:
			return bad("checksums v1 and v2 or v3 at once")
		}
		if v2 || v3 {
			if t := sb.ChecksumType; t != ChecksumCRC32C {
				return bad("checksum type %d", t)
			}
			if want, got := superSum(j.sb), sb.Checksum.Get(); got != want {
				return &CorruptError{What: "journal superblock", Block: at, Csum: true,
					Why: fmt.Sprintf("checksum %#x, not %#x", got, want)}
			}
		}
	}
	if err := j.setFormat(); err != nil {
		return err
	}
	if s := sb.Start.Get(); s != 0 && (s < j.first || s >= j.last) {
		return bad("start %d outside the log", s)
	}
	return nil
}

// has tells whether the superblock has the incompat feature.
func (j *Journal) has(incompat uint32) bool {
	return !j.v1 && j.super().FeatureIncomp.Get()&incompat != 0
}

// setFormat derives from the superblock's features how blocks are written.
func (j *Journal) setFormat() error {
	sb := j.super()
	j.format = format{bsize: j.bsize}
	if !j.v1 {
		j.format = formatOf(j.bsize, sb.FeatureCompat.Get(), sb.FeatureIncomp.Get(), sb.UUID[:])
	}
	j.last = j.total
	if j.has(IncompatFastCommit) {
		n := sb.NumFCBlocks.Get()
		if n == 0 {
			n = DefaultFCBlocks
		}
		if n >= j.total-j.first {
			return corrupt("journal superblock", j.cfg.SuperBlock, "%d fast commit blocks in a log of %d", n, j.total)
		}
		// A log that would be too short keeps the area for itself; so the kernel.
		if j.total-n >= MinBlocks {
			j.last = j.total - n
		}
	}
	return nil
}

func superSum(sb []byte) uint32 { return sumWithout(^uint32(0), sb[:1024], superCsumOff) }

// writeSuper changes the superblock and writes it, durably if sync is set.
// sbMu is held.
func (j *Journal) writeSuper(sync bool, change func(sb *Superblock)) error {
	sb := j.super()
	if change != nil {
		change(sb)
	}
	if j.format.csumV2 || j.format.csumV3 {
		sb.ChecksumType = ChecksumCRC32C
		sb.Checksum.Set(superSum(j.sb))
	}
	if err := j.writeLog(j.cfg.SuperBlock, j.sb); err != nil {
		return err
	}
	if sync {
		return j.syncLog()
	}
	return nil
}

// ClearErrno resets the error that an abort left in the superblock.
func (j *Journal) ClearErrno() error {
	if j.none {
		return nil
	}
	j.sbMu.Lock()
	defer j.sbMu.Unlock()
	if j.super().Errno.Get() == 0 {
		return nil
	}
	return j.writeSuper(true, func(sb *Superblock) { sb.Errno.Set(0) })
}

// Clear empties the log on disk, whatever is in it: s_start becomes 0, and the
// sequence continues after all that is in the log. The journal is not loaded.
func (j *Journal) Clear() error {
	if j.none {
		return nil
	}
	j.sbMu.Lock()
	defer j.sbMu.Unlock()
	j.skip()
	err := j.writeSuper(true, func(sb *Superblock) {
		sb.Start.Set(0)
		sb.Sequence.Set(uint32(j.nextTid))
	})
	if err == nil {
		j.recovered = true
	}
	return err
}

// skip has numbers go on after those of the transactions in the log, unless
// Recover has seen to that. What is written next may end right before an old
// transaction, and that must not bear the number that follows. sbMu is held.
func (j *Journal) skip() {
	sb := j.super()
	if j.recovered || sb.Start.Get() == 0 {
		return
	}
	rec := &recovery{j: j, start: Tid(sb.Sequence.Get())}
	rec.log.init(j)
	if err := rec.scan(sb.Start.Get()); err != nil || rec.bad {
		rec.last += Tid(j.total) // there may be more, but not so many
	}
	j.nextTid = rec.last + 1
}

// CreateOptions are the parameters of a fresh journal.
type CreateOptions struct {
	Version  int // 1 or 2; 0 is 2
	Features Features
	UUID     [16]byte // of the journal: that of the file system, or of an external journal itself
	Users    [][16]byte
	FCBlocks uint32 // with IncompatFastCommit; 0 is DefaultFCBlocks
	Sequence Tid    // 0 is 1
}

// NewSuperblock returns the block, of bsize bytes, that holds the superblock of
// an empty journal of blocks blocks. super is the log block it is for: 0, or
// the superblock's place on an external journal.
func NewSuperblock(bsize int, blocks, super uint32, o CreateOptions) []byte {
	b := blockdev.AlignedBuf(bsize, bsize)
	sb := endian.View[Superblock](b)
	sb.Header.Magic.Set(Magic)
	sb.Header.BlockType.Set(SuperblockV2)
	if o.Version == 1 {
		sb.Header.BlockType.Set(SuperblockV1)
	}
	sb.BlockSize.Set(uint32(bsize))
	sb.MaxLen.Set(blocks)
	sb.First.Set(super + 1)
	sb.Sequence.Set(max(uint32(o.Sequence), 1))
	if o.Version == 1 {
		return b
	}
	sb.FeatureCompat.Set(o.Features.Compat)
	sb.FeatureIncomp.Set(o.Features.Incompat)
	sb.FeatureROComp.Set(o.Features.ROCompat)
	sb.UUID = o.UUID
	sb.NrUsers.Set(uint32(len(o.Users)))
	copy(sb.Users[:], o.Users)
	if o.Features.Incompat&IncompatFastCommit != 0 {
		n := o.FCBlocks
		if n == 0 {
			n = DefaultFCBlocks
		}
		sb.NumFCBlocks.Set(n)
	}
	if o.Features.Incompat&(IncompatCsumV2|IncompatCsumV3) != 0 {
		sb.ChecksumType = ChecksumCRC32C
		sb.Checksum.Set(superSum(b))
	}
	return b
}

// Create writes the superblock of an empty journal to where cfg says. Other
// blocks of the log are left as they are: what they hold must not look like
// blocks of a journal with the same UUID.
func Create(cfg Config, o CreateOptions) error {
	j, err := newJournal(cfg)
	if err != nil {
		return err
	}
	if err := j.writeLog(cfg.SuperBlock, NewSuperblock(cfg.BlockSize, cfg.Blocks, cfg.SuperBlock, o)); err != nil {
		return err
	}
	return j.dev.Sync()
}
