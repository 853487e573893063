package jbd2

import (
	"encoding/binary"
	"slices"

	"github.com/e2kit/e2kit/lib/endian"
)

// layout says which block of a transaction in the log is which: revoke blocks,
// then descriptor blocks, each followed by what it describes, then the commit
// block.
type layout struct{ revokes, descs, tags, blocks int }

// data returns the place of logged block i.
func (l *layout) data(i int) int { return l.revokes + i/l.tags*(l.tags+1) + 1 + i%l.tags }

// desc returns the place of descriptor i.
func (l *layout) desc(i int) int { return l.revokes + i*(l.tags+1) }

func (l *layout) commit() int { return l.revokes + l.descs + l.blocks }

func (tx *Tx) layout() layout {
	f := &tx.j.format
	l := layout{tags: f.tagsPerBlock(), blocks: len(tx.bufs)}
	l.descs = (l.blocks + l.tags - 1) / l.tags
	if !tx.j.v1 {
		n := f.revokesPerBlock()
		l.revokes = (len(tx.revoked) + n - 1) / n
	}
	return l
}

// encode writes the revoke and descriptor blocks, escapes blocks that look like
// ours, and returns the crc32 of COMPAT_CHECKSUM.
func (tx *Tx) encode(st *staging, l *layout) uint32 {
	f := &tx.j.format
	if l.revokes > 0 {
		tx.encodeRevokes(st, l.revokes)
	}
	seed := tagSeed(f.seed, tx.tid)
	crc := ^uint32(0)
	for d := range l.descs {
		desc := st.block(l.desc(d))
		clear(desc)
		putHeader(desc, DescriptorBlock, tx.tid)
		off := 12
		first, end := d*l.tags, min((d+1)*l.tags, l.blocks)
		for i := first; i < end; i++ {
			data := st.block(l.data(i))
			t := Tag{Block: uint64(tx.bufs[i].Block())}
			if binary.BigEndian.Uint32(data) == Magic {
				t.Flags |= TagEscape
				clear(data[:4])
			}
			if i > first {
				t.Flags |= TagSameUUID
			}
			if i == end-1 {
				t.Flags |= TagLast
			}
			if f.csum() {
				t.Csum = crc32c(seed, data)
			}
			off += f.putTag(desc[off:], t, &tx.j.cfg.UUID)
		}
		if f.csum() {
			sealTail(f.seed, desc)
		}
		if f.csumV1 {
			crc = crc32BE(crc, desc)
			for i := first; i < end; i++ {
				crc = crc32BE(crc, st.block(l.data(i)))
			}
		}
	}
	return crc
}

func (tx *Tx) encodeRevokes(st *staging, blocks int) {
	f := &tx.j.format
	list := make([]uint64, 0, len(tx.revoked))
	for blk := range tx.revoked {
		list = append(list, blk)
	}
	slices.Sort(list) // the same changes make the same log
	for k := range blocks {
		b := st.block(k)
		clear(b)
		putHeader(b, RevokeBlock, tx.tid)
		off := 16
		n := min(len(list), f.revokesPerBlock())
		for _, blk := range list[:n] {
			if f.b64 {
				endian.View[endian.BE64](b[off:]).Set(blk)
			} else {
				endian.View[endian.BE32](b[off:]).Set(uint32(blk))
			}
			off += f.revokeBytes()
		}
		list = list[n:]
		endian.View[RevokeHeader](b).Count.Set(uint32(off))
		if f.csum() {
			sealTail(f.seed, b)
		}
	}
}

func (tx *Tx) encodeCommit(b []byte, crc uint32) {
	f := &tx.j.format
	clear(b)
	putHeader(b, CommitBlock, tx.tid)
	c := endian.View[CommitHeader](b)
	now := tx.j.cfg.Now()
	c.Sec.Set(uint64(now.Unix()))
	c.Nsec.Set(uint32(now.Nanosecond()))
	switch {
	case f.csum():
		c.Checksum[0].Set(sumWithout(f.seed, b, commitCsumOff))
	case f.csumV1:
		c.ChecksumType, c.ChecksumSize = ChecksumCRC32, 4
		c.Checksum[0].Set(crc)
	}
}
