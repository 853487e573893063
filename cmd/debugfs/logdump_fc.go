package main

import (
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// fastCommits shows the fast commits at the end of the log. Where neither the
// journal nor the file system ever had any, those blocks are the log's.
func (w *logWalk) fastCommits() error {
	n := w.sb.NumFCBlocks.Get()
	if n == 0 {
		if w.sb.FeatureIncomp.Get()&jbd2.IncompatFastCommit == 0 &&
			(w.raw == nil || w.raw.Super().FeatureCompat.Get()&ondisk.CompatFastCommit == 0) {
			return nil
		}
		n = jbd2.DefaultFCBlocks
	}
	if n > w.end {
		return nil
	}
	// The first block of the area is left free by the kernel.
	for at := w.end - n + 1; at < w.end && !w.interrupted(); at++ {
		b, err := w.block(at)
		if err != nil {
			return err
		}
		if done := w.fastCommit(b); done && !w.old {
			break
		}
	}
	return nil
}

// fastCommit shows a block of fast commits. It returns true if no more are to
// be expected after it.
func (w *logWalk) fastCommit(b []byte) (done bool) {
	// A tag that reaches past the block ends it. What is none is passed over.
	jbd2.FCTags(b, func(tag uint16, raw []byte) bool {
		v := raw[4:]
		older := func(tid uint32) bool { return !w.old && tid < uint32(w.tid) }
		switch tag {
		case jbd2.FCAddRange:
			if r, err := ondisk.ParseFCAddRange(v); err == nil {
				w.tell(logEvent{"event": "fast_commit", "tag": "ADD_RANGE", "ino": r.Ino.Get(), "lblk": r.Extent.Block.Get(), "pblk": r.Extent.Start(),
					"len": r.Extent.Len(), "unwritten": r.Extent.Unwritten()}, "tag ADD_RANGE, inode %d, lblk %d, pblk %d, len %d\n",
					int32(r.Ino.Get()), r.Extent.Block.Get(), r.Extent.Start(), r.Extent.Len())
			}
		case jbd2.FCDelRange:
			if r, err := ondisk.ParseFCDelRange(v); err == nil {
				w.tell(logEvent{"event": "fast_commit", "tag": "DEL_RANGE", "ino": r.Ino.Get(), "lblk": r.Lblk.Get(), "len": r.Len.Get()},
					"tag DEL_RANGE, inode %d, lblk %d, len %d\n",
					int32(r.Ino.Get()), int32(r.Lblk.Get()), int32(r.Len.Get()))
			}
		case jbd2.FCCreat, jbd2.FCLink, jbd2.FCUnlink:
			if e, name, err := ondisk.ParseFCDentry(v); err == nil {
				what := map[uint16]string{jbd2.FCCreat: "CREAT_DENTRY", jbd2.FCLink: "ADD_ENTRY", jbd2.FCUnlink: "DEL_ENTRY"}[tag]
				w.tell(logEvent{"event": "fast_commit", "tag": what, "parent": e.Parent.Get(), "ino": e.Ino.Get(), "name": e2p.Text(name)},
					"tag %s, parent %d, ino %d, name \"%s\"\n",
					what, int32(e.Parent.Get()), int32(e.Ino.Get()), e2p.Clean(e2p.Text(name)))
			}
		case jbd2.FCInode:
			if len(v) >= 4 {
				ino := endian.View[endian.LE32](v).Get()
				w.tell(logEvent{"event": "fast_commit", "tag": "INODE", "ino": ino}, "tag INODE, inode %d\n", int32(ino))
			}
		case jbd2.FCPad:
			w.tell(logEvent{"event": "fast_commit", "tag": "PAD"}, "tag PAD\n")
		case jbd2.FCTail:
			if len(v) >= 8 {
				tid := endian.View[jbd2.FCTailValue](v).Tid.Get()
				w.tell(logEvent{"event": "fast_commit", "tag": "TAIL", "transaction": tid}, "tag TAIL, tid %d\n", int32(tid))
				if older(tid) {
					done = true
					return false
				}
			}
		case jbd2.FCHead:
			if len(v) >= 8 {
				h := endian.View[jbd2.FCHeadValue](v)
				w.tell(logEvent{"event": "fast_commit", "tag": "HEAD", "features": h.Features.Get(), "transaction": h.Tid.Get()},
					"\n*** Fast Commit Area ***\ntag HEAD, features 0x%x, tid %d\n",
					h.Features.Get(), int32(h.Tid.Get()))
				if older(h.Tid.Get()) {
					done = true
					return false
				}
			}
		default:
			done = true
		}
		return true
	})
	return done
}
