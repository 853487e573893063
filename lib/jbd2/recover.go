package jbd2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// Replayer is where recovery writes to.
type Replayer interface {
	// Check returns an error if blk, on the file system's device, cannot be the
	// home of a logged block. It is called for every block before the first is
	// written.
	Check(blk uint64) error
	// Write writes data, one or more blocks, at blk and on. It keeps no
	// reference to data.
	Write(blk uint64, data []byte) error
	// FastCommit applies a fast commit tag. It is called, in order, for tags of
	// complete and verified fast commits only, after the last Write. value is
	// valid during the call. Tags without effect are left out.
	FastCommit(tag uint16, value []byte) error
	// Sync makes what was written durable.
	Sync() error
}

// DataChecker is a Replayer that also looks at what is logged for some blocks,
// in the round that comes before the first write.
type DataChecker interface {
	// WantData tells whether CheckData is to see the copies of blk.
	WantData(blk uint64) bool
	// CheckData returns an error if data, one block, must not be written to blk.
	CheckData(blk uint64, data []byte) error
}

// RecoverStats says what a recovery found and did.
type RecoverStats struct {
	Start, End   Tid    // transactions from Start to before End were complete
	Replayed     int    // blocks written, copies of one block counted each
	Revoked      int    // blocks not written, since they were revoked later
	RevokeBlocks int    // logged blocks with a revoke record
	FastCommits  int    // fast commit tags applied
	Failed       bool   // transaction End is there, but its commit block is bad
	BadBlocks    int    // blocks not written, since their checksum is bad
	BadBlock     uint32 // the first of those, in the log
}

// Recover replays the log: it finds the complete transactions, refuses them all
// if one has a target that cannot be, and then writes home what was not revoked.
// The journal itself is not written; Load or Clear does that. A log that ends
// in a transaction that is not complete is in order. An error that is in the
// log after transactions that are in order is returned after these have been
// replayed, as the statistics tell; then Load still wants a recovery.
func (j *Journal) Recover(r Replayer) (RecoverStats, error) {
	if j.none || j.loaded {
		return RecoverStats{}, errors.New("journal: cannot be recovered while in use")
	}
	sb := j.super()
	if sb.Start.Get() == 0 {
		return RecoverStats{}, nil
	}
	rec := &recovery{j: j, r: r, start: Tid(sb.Sequence.Get())}
	rec.log.init(j)
	err := rec.run(sb.Start.Get())
	j.nextTid = rec.last + 1
	if err == nil {
		j.recovered = true
	}
	return rec.stats, err
}

// recovery is the state of one Recover.
type recovery struct {
	j   *Journal
	r   Replayer
	log logReader

	start, end Tid
	endAt      uint32            // log block after the last complete transaction
	last       Tid               // the latest number seen, past end if a transaction failed
	revoked    map[uint64]revoke // for blocks that are logged; nil if none is revoked
	bad        bool              // the scan ended at a checksum that is wrong, so more may follow
	revokes    bool              // there are revoke blocks
	own        []run             // where the log itself lies
	out        outBuffer
	stats      RecoverStats
}

func (rec *recovery) run(start uint32) error {
	rec.stats.Start = rec.start
	if err := rec.scan(start); err != nil {
		return err
	}
	rec.stats.End = rec.end
	if rec.revokes {
		rec.revoked = map[uint64]revoke{}
		if err := rec.walk(start, rec.scanTargets); err != nil {
			return err
		}
		if err := rec.walk(start, rec.scanRevoke); err != nil {
			return err
		}
	}
	var err error
	if rec.own, err = rec.j.logBlocks(); err != nil {
		return err
	}
	if err := rec.walk(start, rec.checkTargets); err != nil {
		return err
	}
	fc, fcErr := rec.findFastCommits()
	rec.out.init(rec.j, rec.r)
	if err := rec.walk(start, rec.replay); err != nil {
		return err
	}
	if err := rec.out.flush(); err != nil {
		return err
	}
	bad := rec.badError()
	if fcErr == nil && bad == nil {
		fcErr = rec.replayFastCommits(fc)
	}
	if err := rec.r.Sync(); err != nil {
		return err
	}
	if bad != nil {
		return bad
	}
	return fcErr
}

// badError returns the error for what was found bad but did not stop the replay.
func (rec *recovery) badError() error {
	switch {
	case rec.stats.Failed:
		return corrupt("journal", 0, "transaction %d is corrupt, replay ended before it", rec.end)
	case rec.stats.BadBlocks > 0:
		return &CorruptError{What: "journal", Block: rec.stats.BadBlock, Csum: true,
			Why: fmt.Sprintf("%d logged blocks have bad checksums, the first one here", rec.stats.BadBlocks)}
	}
	return nil
}

// scan finds the end of the log: the first transaction that is not complete.
func (rec *recovery) scan(next uint32) error {
	j := rec.j
	f := &j.format
	tid := rec.start
	var (
		last      uint64 // commit time of the last complete transaction
		suspect   bool   // this transaction has a journal block with a bad checksum
		badData   bool   // or, if its commit did not wait, data that has
		suspectAt uint32
		crc       = ^uint32(0)
		failed    bool // end is known, but the log may go on
	)
	rec.last, rec.endAt = tid, next
	desc := make([]byte, j.bsize)
scan:
	for seen := uint32(0); seen <= j.last-j.first; {
		b, err := rec.log.block(next)
		if err != nil {
			return err
		}
		h := endian.View[Header](b)
		if h.Magic.Get() != Magic || Tid(h.Sequence.Get()) != tid {
			break
		}
		at := next
		next, seen = j.wrap(next+1), seen+1
		switch h.BlockType.Get() {
		case DescriptorBlock:
			if f.csum() && !tailOK(f.seed, b) && !suspect {
				suspect, suspectAt = true, at
			}
			copy(desc, b)
			if f.csumV1 {
				crc = crc32BE(crc, desc)
			}
			seed := tagSeed(f.seed, tid)
			for t := range f.tags(desc) {
				if (f.csumV1 || f.csum() && f.async) && !failed {
					b, err := rec.log.block(next)
					if err != nil {
						return err
					}
					if f.csumV1 {
						crc = crc32BE(crc, b)
					} else if !f.tagOK(t, seed, b) {
						badData = true
					}
				}
				next, seen = j.wrap(next+1), seen+1
			}
			continue
		case RevokeBlock:
			rec.revokes = true
			if f.csum() && !tailOK(f.seed, b) && !suspect {
				suspect, suspectAt = true, at
			}
			continue
		case CommitBlock:
		default:
			break scan
		}

		c := endian.View[CommitHeader](b)
		when := c.Sec.Get()
		rec.bad = rec.bad || suspect
		if suspect && !f.async {
			// Older blocks may lie behind the log's end and carry a number that
			// comes round again; then the time is that of their own commit.
			if when >= last {
				return &CorruptError{What: "journal", Block: suspectAt, Csum: true,
					Why: fmt.Sprintf("bad checksum in transaction %d", tid)}
			}
			break
		}
		if failed {
			rec.stats.Failed = true
			break
		}
		if !commitOK(f, b, crc) || badData || suspect {
			rec.bad = true
			if when < last {
				break
			}
			rec.end, failed = tid, true
			if !f.async {
				rec.stats.Failed = true
				break
			}
			// A commit that did not wait may be torn if it is the last one:
			// look whether another follows.
		}
		crc = ^uint32(0)
		badData, suspect = false, false
		last = when
		tid++
		rec.last = tid
		if !failed {
			rec.endAt = next
		}
	}
	if !failed {
		rec.end = tid
	}
	return nil
}

// commitOK checks the checksum of a commit block, if it has one; crc is that of
// the transaction, for COMPAT_CHECKSUM.
func commitOK(f *format, b []byte, crc uint32) bool {
	c := endian.View[CommitHeader](b)
	found := c.Checksum[0].Get()
	switch {
	case f.csum():
		if found == sumWithout(f.seed, b, commitCsumOff) {
			return true
		}
		// The rest of the block means nothing and was zero; a crash may have
		// kept it from being written.
		whole := make([]byte, f.bsize)
		copy(whole, b[:unsafe.Sizeof(CommitHeader{})])
		return found == sumWithout(f.seed, whole, commitCsumOff)
	case f.csumV1:
		return c.ChecksumType == ChecksumCRC32 && c.ChecksumSize == 4 && found == crc ||
			c.ChecksumType == 0 && c.ChecksumSize == 0 && found == 0
	}
	return true
}

// walk calls visit for the descriptor and revoke blocks of the complete
// transactions. next is the log block that follows b; visit of a descriptor
// block does not keep b.
func (rec *recovery) walk(next uint32, visit func(b []byte, blockType uint32, tid Tid, at uint32) error) error {
	j := rec.j
	block := make([]byte, j.bsize)
	for tid, seen := rec.start, uint32(0); rec.end.After(tid); {
		if seen > j.last-j.first {
			return corrupt("journal", next, "the log has no end")
		}
		b, err := rec.log.block(next)
		if err != nil {
			return err
		}
		copy(block, b)
		h := endian.View[Header](block)
		if h.Magic.Get() != Magic || Tid(h.Sequence.Get()) != tid {
			return corrupt("journal", next, "the log changes while it is read")
		}
		at := next
		next, seen = j.wrap(next+1), seen+1
		switch typ := h.BlockType.Get(); typ {
		case CommitBlock:
			tid++
		case DescriptorBlock, RevokeBlock:
			if err := visit(block, typ, tid, at); err != nil {
				return err
			}
			if typ == DescriptorBlock {
				for range j.format.tags(block) {
					next, seen = j.wrap(next+1), seen+1
				}
			}
		}
	}
	return nil
}

// revoke is the latest transaction that revokes a block, if one does.
type revoke struct {
	by  Tid
	any bool
}

// scanTargets notes which blocks are logged: records for others are not kept,
// so that a log takes memory by its length, not by what it says.
func (rec *recovery) scanTargets(b []byte, typ uint32, tid Tid, at uint32) error {
	if typ == DescriptorBlock {
		for t := range rec.j.format.tags(b) {
			rec.revoked[t.Block] = revoke{}
		}
	}
	return nil
}

// scanRevoke notes the records of revoke blocks.
func (rec *recovery) scanRevoke(b []byte, typ uint32, tid Tid, at uint32) error {
	if typ != RevokeBlock {
		return nil
	}
	return rec.j.format.revokes(b, at, func(blk uint64) bool {
		if r, ok := rec.revoked[blk]; ok && (!r.any || tid.After(r.by)) {
			if !r.any {
				rec.stats.RevokeBlocks++
			}
			rec.revoked[blk] = revoke{tid, true}
		}
		return true
	})
}

// isRevoked tells whether a copy of blk in transaction tid is not to be written.
func (rec *recovery) isRevoked(blk uint64, tid Tid) bool {
	r := rec.revoked[blk]
	return r.any && !tid.After(r.by)
}

// checkTargets refuses a descriptor block with a block that cannot be.
func (rec *recovery) checkTargets(b []byte, typ uint32, tid Tid, at uint32) error {
	if typ != DescriptorBlock {
		return nil
	}
	limit := uint64(rec.j.fsdev.Size()) / uint64(rec.j.bsize)
	checker, _ := rec.r.(DataChecker)
	n := at
	for t := range rec.j.format.tags(b) {
		n = rec.j.wrap(n + 1)
		if rec.isRevoked(t.Block, tid) {
			continue
		}
		if t.Block >= limit {
			return corrupt("descriptor block", at, "transaction %d has block %d, past the end of the device", tid, t.Block)
		}
		if covers(rec.own, t.Block) {
			return corrupt("descriptor block", at, "transaction %d has block %d, of the journal itself", tid, t.Block)
		}
		if err := rec.r.Check(t.Block); err != nil {
			return fmt.Errorf("transaction %d: %w", tid, err)
		}
		if checker == nil || !checker.WantData(t.Block) {
			continue
		}
		if err := rec.checkData(checker, t, tid, n); err != nil {
			return fmt.Errorf("transaction %d: %w", tid, err)
		}
	}
	return nil
}

// checkData shows the copy of a block in log block n to the replayer. One whose
// checksum is bad will not be written.
func (rec *recovery) checkData(c DataChecker, t Tag, tid Tid, n uint32) error {
	data, err := rec.log.block(n)
	if err != nil {
		return err
	}
	f := &rec.j.format
	if !f.tagOK(t, tagSeed(f.seed, tid), data) {
		return nil
	}
	if t.Flags&TagEscape != 0 {
		data = bytes.Clone(data)
		binary.BigEndian.PutUint32(data, Magic)
	}
	return c.CheckData(t.Block, data)
}

// replay writes home what a descriptor block describes.
func (rec *recovery) replay(b []byte, typ uint32, tid Tid, at uint32) error {
	if typ != DescriptorBlock {
		return nil
	}
	j := rec.j
	n, seed := at, tagSeed(j.format.seed, tid)
	for t := range j.format.tags(b) {
		n = j.wrap(n + 1)
		if rec.isRevoked(t.Block, tid) {
			rec.stats.Revoked++
			continue
		}
		data, err := rec.log.block(n)
		if err != nil {
			return err
		}
		if !j.format.tagOK(t, seed, data) {
			if rec.stats.BadBlocks++; rec.stats.BadBlocks == 1 {
				rec.stats.BadBlock = n
			}
			continue
		}
		rec.stats.Replayed++
		if err := rec.out.add(t.Block, data, t.Flags&TagEscape != 0); err != nil {
			return err
		}
	}
	return nil
}
