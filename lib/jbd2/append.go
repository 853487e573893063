package jbd2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
)

// LoggedBlock is a block for the log, and its home.
type LoggedBlock struct {
	Home uint64
	Data []byte // of a block's size
}

// An Appender writes transactions to the end of a log and nothing home: to make
// journals that need recovery. The journal is not loaded meanwhile.
type Appender struct {
	j     *Journal
	start uint32 // first block of the log, 0 while it is empty
	seq   Tid    // of the transaction there
	head  uint32 // block that is written next
	tid   Tid
	used  uint32 // blocks of the log
}

// Append returns an Appender behind the last complete transaction of the log.
// Features are turned on if the log is empty; else it fails with EBUSY where
// they are not on.
func (j *Journal) Append(set Features) (*Appender, error) {
	if j.none || j.loaded {
		return nil, syscall.EINVAL
	}
	sb := j.super()
	a := &Appender{j: j, start: sb.Start.Get(), seq: Tid(sb.Sequence.Get()), head: j.first, tid: j.nextTid}
	if a.start != 0 {
		rec := &recovery{j: j, start: a.seq}
		rec.log.init(j)
		if err := rec.scan(a.start); err != nil {
			return nil, err
		}
		a.tid, a.head = rec.end, rec.endAt
		a.used = (a.head + (j.last - j.first) - a.start) % (j.last - j.first)
	}
	if j.v1 || set.Compat&^sb.FeatureCompat.Get() == 0 && set.Incompat&^sb.FeatureIncomp.Get() == 0 {
		return a, nil
	}
	if a.start != 0 {
		return nil, fmt.Errorf("features of a journal cannot change while there is something in it: %w", syscall.EBUSY)
	}
	j.sbMu.Lock()
	defer j.sbMu.Unlock()
	sb.FeatureCompat.Set(sb.FeatureCompat.Get() | set.Compat)
	sb.FeatureIncomp.Set(sb.FeatureIncomp.Get() | set.Incompat)
	if err := j.setFormat(); err != nil {
		return nil, err
	}
	return a, j.writeSuper(true, nil)
}

// Write appends a transaction: revoke records, then blocks, and unless torn, its
// commit block. It fails with ENOSPC if the log has no room for it.
func (a *Appender) Write(blocks []LoggedBlock, revokes []uint64, torn bool) error {
	j, f := a.j, &a.j.format
	if j.v1 && len(revokes) > 0 {
		return fmt.Errorf("a journal of version 1 has no revoke records: %w", syscall.EOPNOTSUPP)
	}
	var out [][]byte
	for part := range slices.Chunk(revokes, f.revokesPerBlock()) {
		out = append(out, a.revokeBlock(part))
	}
	tags := f.tagsPerBlock()
	for part := range slices.Chunk(blocks, tags) {
		list, err := a.described(part)
		if err != nil {
			return err
		}
		out = append(out, list...)
	}
	if !torn {
		out = append(out, a.commitBlock(out))
	}
	if uint32(len(out)) >= j.last-j.first-a.used {
		return fmt.Errorf("the log has room for %d blocks: %w", j.last-j.first-a.used-1, syscall.ENOSPC)
	}
	head := a.head
	for _, b := range out {
		if err := j.writeLog(head, b); err != nil {
			return err
		}
		head = j.wrap(head + 1)
	}
	if a.start == 0 {
		a.start, a.seq = a.head, a.tid
	}
	a.used += uint32(len(out))
	a.head = head
	a.tid++
	return nil
}

func (a *Appender) revokeBlock(list []uint64) []byte {
	f := &a.j.format
	b := make([]byte, f.bsize)
	putHeader(b, RevokeBlock, a.tid)
	off := 16
	for _, blk := range list {
		if f.b64 {
			endian.View[endian.BE64](b[off:]).Set(blk)
		} else {
			endian.View[endian.BE32](b[off:]).Set(uint32(blk))
		}
		off += f.revokeBytes()
	}
	endian.View[RevokeHeader](b).Count.Set(uint32(off))
	if f.csum() {
		sealTail(f.seed, b)
	}
	return b
}

// described returns a descriptor block and the blocks that it describes.
func (a *Appender) described(list []LoggedBlock) ([][]byte, error) {
	f := &a.j.format
	desc := make([]byte, f.bsize)
	putHeader(desc, DescriptorBlock, a.tid)
	out := [][]byte{desc}
	off := 12
	for i, b := range list {
		if len(b.Data) != f.bsize {
			return nil, fmt.Errorf("a block of %d bytes: %w", len(b.Data), syscall.EINVAL)
		}
		if !f.b64 && b.Home>>32 != 0 {
			return nil, fmt.Errorf("block %d in a journal without 64bit: %w", b.Home, syscall.EFBIG)
		}
		data := slices.Clone(b.Data)
		t := Tag{Block: b.Home}
		if binary.BigEndian.Uint32(data) == Magic {
			t.Flags |= TagEscape
			clear(data[:4])
		}
		if i > 0 {
			t.Flags |= TagSameUUID
		}
		if i == len(list)-1 {
			t.Flags |= TagLast
		}
		if f.csum() {
			t.Csum = crc32c(tagSeed(f.seed, a.tid), data)
		}
		off += f.putTag(desc[off:], t, &a.j.cfg.UUID)
		out = append(out, data)
	}
	if f.csum() {
		sealTail(f.seed, desc)
	}
	return out, nil
}

// commitBlock ends the transaction of the blocks in out.
func (a *Appender) commitBlock(out [][]byte) []byte {
	crc := ^uint32(0)
	for _, b := range out {
		if endian.View[Header](b).Magic.Get() == Magic && endian.View[Header](b).BlockType.Get() == RevokeBlock {
			continue
		}
		crc = crc32BE(crc, b)
	}
	b := make([]byte, a.j.bsize)
	tx := &Tx{j: a.j, tid: a.tid}
	tx.encodeCommit(b, crc)
	return b
}

// Close has the superblock of the journal say what was written. Written is
// false if nothing was.
func (a *Appender) Close() (written bool, err error) {
	if a.used == 0 {
		return false, nil
	}
	j := a.j
	j.sbMu.Lock()
	defer j.sbMu.Unlock()
	err = errors.Join(j.syncLog(), j.writeSuper(true, func(sb *Superblock) {
		sb.Start.Set(a.start)
		sb.Sequence.Set(uint32(a.seq))
	}))
	return true, err
}
