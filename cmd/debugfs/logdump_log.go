package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// A logWalk goes through the blocks of a log.
type logWalk struct {
	*logDumper
	sb      *jbd2.Superblock
	layout  jbd2.Layout
	bs      uint32
	end     uint32 // the block after the log, the fast commit area included
	tid     jbd2.Tid
	at      uint32 // block that comes next
	wrapped bool
	passed  uint64 // blocks that were passed
}

// superEvent is the superblock of a journal as JSON has it.
func superEvent(s *jbd2.Superblock) logEvent {
	return logEvent{"event": "superblock", "type": s.Header.BlockType.Get(), "block_size": s.BlockSize.Get(), "max_len": s.MaxLen.Get(),
		"first": s.First.Get(), "sequence": s.Sequence.Get(), "start": s.Start.Get(), "errno": int32(s.Errno.Get()),
		"feature_compat": s.FeatureCompat.Get(), "feature_incompat": s.FeatureIncomp.Get(), "fast_commit_blocks": s.NumFCBlocks.Get(),
		"uuid": e2p.UUIDString(s.UUID)}
}

// read returns the n bytes of the journal at byte off.
func (d *logDumper) read(off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := d.ReadAt(b, off)
	if got < n {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%s ends there", d.what)
		}
		return nil, fmt.Errorf("journal, %d bytes at byte %d: %w", n, off, err)
	}
	return b, nil
}

func (w *logWalk) block(n uint32) ([]byte, error) { return w.read(int64(n)*int64(w.bs), int(w.bs)) }

// journal shows the journal.
func (d *logDumper) journal() error {
	head, err := d.read(0, 2048)
	if err != nil {
		return err
	}
	at := int64(0)
	if endian.View[jbd2.Header](head).Magic.Get() != jbd2.Magic {
		at = d.deviceHeader(endian.View[ondisk.Super](head[1024:]))
	}
	b, err := d.read(at, 1024)
	if err != nil {
		return err
	}
	w := &logWalk{logDumper: d, sb: endian.View[jbd2.Superblock](b)}
	w.bs = w.sb.BlockSize.Get()
	if d.super {
		bs := int(w.bs)
		if d.raw != nil {
			bs = d.raw.BlockSize()
		}
		if d.json {
			d.tell(superEvent(w.sb), "")
		} else if err := e2p.ListJournal(d.out, w.sb, bs, false); err != nil {
			return err
		}
		d.tell(nil, "\n")
	}
	if w.sb.Header.Magic.Get() != jbd2.Magic {
		d.tell(nil, "Journal superblock magic number invalid!\n")
		return errors.New("there is no journal")
	}
	if d.raw != nil && w.bs != uint32(d.raw.BlockSize()) || w.bs < 1024 || w.bs > ondisk.MaxBlockSize || w.bs&(w.bs-1) != 0 {
		d.tell(nil, "Journal block size invalid: %d (%d)\n", w.bs, w.bs)
		return errors.New("the journal cannot be read")
	}
	w.layout = jbd2.LayoutOf(w.sb, int(w.bs))
	w.tid, w.at = jbd2.Tid(w.sb.Sequence.Get()), w.sb.Start.Get()
	w.end = uint32(min(uint64(w.sb.MaxLen.Get()), uint64(d.size)/uint64(w.bs)))
	d.tell(logEvent{"event": "journal", "start": w.at, "transaction": w.tid}, "Journal starts at block %d, transaction %d\n", w.at, w.tid)
	if w.at != 0 || d.old {
		if w.at == 0 {
			w.at = 1
		}
		err = w.transactions()
	}
	return errors.Join(err, w.fastCommits())
}

// deviceHeader shows the superblock that an external journal begins with, and
// returns the byte where the journal's own is; 0 if it is none.
func (d *logDumper) deviceHeader(s *ondisk.Super) int64 {
	log := s.LogBlockSize.Get()
	if s.Magic.Get() != ondisk.SuperMagic || s.FeatureIncompat.Get()&ondisk.IncompatJournalDev == 0 || log > 6 {
		return 0
	}
	d.tell(nil, "Ext2 superblock header found.\n")
	if d.all {
		blocks := uint64(s.BlocksCountLo.Get())
		if s.FeatureIncompat.Get()&ondisk.Incompat64Bit != 0 {
			blocks |= uint64(s.BlocksCountHi.Get()) << 32
		}
		uuid := e2p.UUIDString(s.UUID)
		d.tell(logEvent{"event": "device", "uuid": uuid, "block_size": 1024 << log, "blocks": blocks},
			"\tuuid=%s\n\tblocksize=%d\n\tjournal data size %d\n", uuid, 1024<<log, blocks)
	}
	if log == 0 {
		return 2 * 1024
	}
	return 1024 << log
}

// next goes on by a block, from the end of the log to its beginning.
func (w *logWalk) next() {
	w.at++
	w.passed++
	if w.at >= w.end {
		w.at -= w.end - w.sb.First.Get()
		w.wrapped = true
	}
}

// transactions shows the log from w.at on.
func (w *logWalk) transactions() error {
	first := w.at
	count := int64(0)
	told := false // that a block has no magic number
	for !w.interrupted() {
		switch {
		case w.old && w.limit != -1 && count >= w.limit:
			return nil
		case w.old && w.wrapped && (w.at == first || w.passed > 2*uint64(w.end)):
			w.tell(logEvent{"event": "end", "transactions": count}, "Dump all %d journal records.\n", count)
			return nil
		case w.passed > 2*uint64(w.end):
			return fmt.Errorf("journal: transaction %d has no end", w.tid)
		}
		b, err := w.block(w.at)
		if err != nil {
			return err
		}
		h := endian.View[jbd2.Header](b)
		seq, kind := jbd2.Tid(h.Sequence.Get()), h.BlockType.Get()
		if h.Magic.Get() != jbd2.Magic {
			if !told {
				w.tell(logEvent{"event": "end", "block": w.at}, "No magic number at block %d: end of journal.\n", w.at)
			}
			if told = true; !w.old || w.limit == -1 {
				return nil
			}
			w.next()
			continue
		}
		if seq != w.tid {
			w.tell(logEvent{"event": "end", "block": w.at, "sequence": seq, "expected": w.tid},
				"Found sequence %d (not %d) at block %d: end of journal.\n", seq, w.tid, w.at)
			if !w.old {
				return nil
			}
		}
		if w.headers {
			w.tell(logEvent{"event": "block", "sequence": seq, "type": kind, "name": blockTypeName(kind), "block": w.at},
				"Found expected sequence %d, type %d (%s) at block %d\n", seq, kind, blockTypeName(kind), w.at)
		}
		switch kind {
		case jbd2.DescriptorBlock:
			if err := w.descriptor(b); err != nil {
				return err
			}
		case jbd2.CommitBlock:
			count++
			w.tid++
			w.next()
		case jbd2.RevokeBlock:
			w.revokes(b)
			w.next()
		default:
			w.tell(nil, "Unexpected block type %d at block %d.\n", kind, w.at)
			return nil
		}
	}
	return nil
}

func blockTypeName(kind uint32) string {
	names := map[uint32]string{
		jbd2.DescriptorBlock: "descriptor block", jbd2.CommitBlock: "commit block", jbd2.SuperblockV1: "V1 superblock",
		jbd2.SuperblockV2: "V2 superblock", jbd2.RevokeBlock: "revoke table",
	}
	if n, ok := names[kind]; ok {
		return n
	}
	return "unrecognised type"
}

// descriptor shows a descriptor block and what it describes, and goes on past
// that.
func (w *logWalk) descriptor(b []byte) error {
	if w.all {
		w.tell(nil, "Dumping descriptor block, sequence %d, at block %d:\n", w.tid, w.at)
	}
	w.next()
	for t := range w.layout.Tags(b) {
		if err := w.logged(t); err != nil {
			return err
		}
		w.next()
	}
	return nil
}

// logged shows a block that the log carries, if it is asked for.
func (w *logWalk) logged(t jbd2.Tag) error {
	home := ondisk.Fsblk(t.Block)
	is := func(b *ondisk.Fsblk) bool { return b != nil && *b == home }
	asked := is(w.logDumper.block) || is(w.bitmap) || is(w.inoBlock)
	if !w.all && !asked {
		return nil
	}
	seq := ""
	if !w.all {
		seq = fmt.Sprintf("sequence %d, ", w.tid)
	}
	w.tell(logEvent{"event": "logged", "fs_block": home, "sequence": w.tid, "journal_block": w.at, "flags": t.Flags},
		"  FS block %d logged at %sjournal block %d (flags 0x%x)\n", home, seq, w.at, t.Flags)
	if !asked && !(w.all && w.contents) {
		return nil
	}
	b, err := w.block(w.at)
	if err != nil {
		return err
	}
	if is(w.bitmap) {
		w.bit(b)
	}
	if is(w.inoBlock) {
		if err := w.inode(b); err != nil {
			return err
		}
	}
	if w.contents {
		w.hexdump(b)
	}
	return nil
}

// bit shows what the block bitmap b says of the block that is asked for.
func (w *logWalk) bit(b []byte) {
	sb := w.raw.Super()
	n := uint64(*w.logDumper.block-ondisk.Fsblk(sb.FirstDataBlock.Get())) % uint64(sb.BlocksPerGroup.Get())
	m := e2p.Bitmap{Bits: b}
	used := m.Used(uint32(n / uint64(w.raw.ClusterRatio())))
	w.tell(logEvent{"event": "bitmap", "block": *w.logDumper.block, "used": used},
		"    (block bitmap for block %d: block is %s)\n", *w.logDumper.block, map[bool]string{false: "CLEAR", true: "SET"}[used])
}

// inode shows the inode that is asked for, of b, a block of its table.
func (w *logWalk) inode(b []byte) error {
	raw := ondisk.RawInode(b[w.inoOffset : w.inoOffset+w.raw.InodeSize()])
	if w.json {
		b := raw.Base()
		w.tell(logEvent{"event": "inode", "ino": w.ino, "type": e2p.TypeName(b.Mode.Get()), "mode": b.Mode.Get(), "uid": raw.UID(), "gid": raw.GID(),
			"size": w.raw.Size(raw), "links_count": b.LinksCount.Get(), "sectors": w.raw.Sectors(raw), "flags": b.Flags.Get(),
			"generation": b.Generation.Get(), "file_acl": raw.FileACL(), "bytes": hex.EncodeToString(raw)}, "")
		return nil
	}
	fmt.Fprintf(w.out, "    (inode block for inode %d):\n", w.ino)
	if err := e2p.ListInode(w.out, "    ", w.ino, raw, w.raw.HasCsum(), systemNames().Location, nil); err != nil {
		return err
	}
	fmt.Fprint(w.out, "    Blocks:  ")
	block := endian.Views[endian.LE32](raw.Base().Block[:], 15)
	for i := 0; i < 12; {
		n := 1
		for i+n < 12 && block[i+n].Get() == block[i].Get()+uint32(n) {
			n++
		}
		if v := block[i].Get(); v != 0 {
			fmt.Fprintf(w.out, "(%d+%d): %d ", i, n, v)
		}
		i += n
	}
	for i, name := range []string{"IND", "DIND", "TIND"} {
		if v := block[12+i].Get(); v != 0 {
			fmt.Fprintf(w.out, "(%s): %d ", name, v)
		}
	}
	fmt.Fprintln(w.out)
	return nil
}

// hexdump shows b as numbers of four bytes and as text.
func (w *logWalk) hexdump(b []byte) {
	if w.json {
		w.tell(logEvent{"event": "contents", "bytes": hex.EncodeToString(b)}, "")
		return
	}
	for i := 0; i+16 <= len(b); i += 16 {
		row := b[i : i+16]
		fmt.Fprintf(w.out, "    %04x:  ", i)
		for _, v := range endian.Views[endian.LE32](row, 4) {
			fmt.Fprintf(w.out, "%08x ", v.Get())
		}
		for _, c := range row {
			if c < ' ' || c >= 127 {
				c = '.'
			}
			w.out.WriteByte(c)
		}
		w.out.WriteByte('\n')
	}
}

// revokes shows a revoke block.
func (w *logWalk) revokes(b []byte) {
	if w.all {
		w.tell(nil, "Dumping revoke block, sequence %d, at block %d:\n", w.tid, w.at)
	}
	if n := endian.View[jbd2.RevokeHeader](b).Count.Get(); n > w.bs {
		w.tell(nil, "Revoke block's r_count invalid: %d\n", n)
	}
	for blk := range w.layout.Revokes(b) {
		e := logEvent{"event": "revoke", "fs_block": blk, "sequence": w.tid, "journal_block": w.at}
		switch {
		case w.all:
			w.tell(e, "  Revoke FS block %d\n", blk)
		case w.logDumper.block != nil && uint64(*w.logDumper.block) == blk:
			w.tell(e, "  Revoke FS block %d at block %d, sequence %d\n", blk, w.at, w.tid)
		}
	}
}
