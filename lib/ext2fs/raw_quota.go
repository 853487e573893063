package ext2fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// RawQuota is an entry of a quota file: what an id uses, and its limits.
type RawQuota struct {
	ID                           uint32
	InodeHard, InodeSoft, Inodes uint64
	BlockHard, BlockSoft         uint64 // in units of 1 KiB
	Space                        uint64 // bytes
	BlockGrace, InodeGrace       uint64 // when the time over a soft limit ends, seconds; 0: not over
}

// QuotaIno returns the inode of the quota file of a kind, QuotaUser, QuotaGroup
// or QuotaProject; 0 if there is none.
func (r *Raw) QuotaIno(kind int) ondisk.Ino {
	if !r.sb.HasROCompat(ondisk.ROCompatQuota) {
		return 0
	}
	switch kind {
	case QuotaUser:
		return ondisk.Ino(r.sb.UsrQuotaInum.Get())
	case QuotaGroup:
		return ondisk.Ino(r.sb.GrpQuotaInum.Get())
	case QuotaProject:
		return ondisk.Ino(r.sb.PrjQuotaInum.Get())
	}
	return 0
}

// Quotas calls fn with the entries of a quota file, in order of their id, until
// it returns false. It fails with ENOENT if there is no such file, and with a
// CorruptError.
func (r *Raw) Quotas(kind int, fn func(q *RawQuota) bool) error {
	ino := r.QuotaIno(kind)
	if ino == 0 {
		return syscall.ENOENT
	}
	f, err := r.OpenFile(ino)
	if err != nil {
		return err
	}
	magic := uint32(0)
	for i, m := range quotaMagic {
		if 1<<i == kind {
			magic = m
		}
	}
	_, err = readQuotas(f, f.size, ino, magic, fn)
	return err
}

// readQuotas calls fn with the entries of a quota file, in order of their id,
// until it returns false, and returns what its header says.
func readQuotas(f io.ReaderAt, size int64, ino ondisk.Ino, magic uint32, fn func(q *RawQuota) bool) (g quotaGraces, err error) {
	w := &quotaWalk{f: f, ino: ino, fn: fn, left: 2 * (uint64(size)/quotaBlock + 1)}
	head := make([]byte, quotaBlock)
	if err := w.read(head, 0); err != nil {
		return g, err
	}
	le := binary.LittleEndian
	if m := le.Uint32(head); m != magic {
		return g, w.corrupt(0, "magic %#x", m)
	}
	if v := le.Uint32(head[4:]); v != quotaVersion {
		return g, w.corrupt(4, "version %d", v)
	}
	for i := range g {
		g[i] = le.Uint32(head[8+4*i:])
	}
	if err := w.node(1, 0, 0); err != nil && !errors.Is(err, errStop) {
		return g, err
	}
	return g, nil
}

type quotaWalk struct {
	f    io.ReaderAt
	ino  ondisk.Ino
	fn   func(q *RawQuota) bool
	left uint64 // blocks that may be read: a tree of no more than twice the file
}

func (w *quotaWalk) corrupt(off int, format string, args ...any) error {
	return ondisk.At(ondisk.Corrupt("quota file", off, format, args...), w.ino, 0)
}

func (w *quotaWalk) read(p []byte, blk uint32) error {
	if w.left == 0 {
		return w.corrupt(0, "the tree has more blocks than the file")
	}
	w.left--
	n, err := w.f.ReadAt(p, int64(blk)*quotaBlock)
	if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		return w.corrupt(0, "block %d is behind its end", blk)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// node walks the references of a block of the tree, which stand for the next
// byte of ids that begin with prefix.
func (w *quotaWalk) node(blk uint32, level int, prefix uint32) error {
	b := make([]byte, quotaBlock)
	if err := w.read(b, blk); err != nil {
		return err
	}
	var data []byte
	last := uint32(0) // block that data has
	for i := range uint32(256) {
		ref := binary.LittleEndian.Uint32(b[4*i:])
		if ref == 0 {
			continue
		}
		id := prefix<<8 | i
		if level < quotaLevels-1 {
			if err := w.node(ref, level+1, id); err != nil {
				return err
			}
			continue
		}
		if data == nil || last != ref {
			if data == nil {
				data = make([]byte, quotaBlock)
			}
			if err := w.read(data, ref); err != nil {
				return err
			}
			last = ref
		}
		if err := w.entry(data, id); err != nil {
			return err
		}
	}
	return nil
}

// entry finds the entry of id in a block of entries.
func (w *quotaWalk) entry(b []byte, id uint32) error {
	for off := quotaHeader; off+quotaEntry <= len(b); off += quotaEntry {
		e := b[off : off+quotaEntry]
		if binary.LittleEndian.Uint32(e) != id || id == 0 && allZero(e) {
			continue
		}
		n := func(i int) uint64 { return binary.LittleEndian.Uint64(e[8+8*i:]) }
		q := RawQuota{ID: id, InodeHard: n(0), InodeSoft: n(1), Inodes: n(2), BlockHard: n(3), BlockSoft: n(4), Space: n(5),
			BlockGrace: n(6), InodeGrace: n(7)}
		if !w.fn(&q) {
			return errStop
		}
		return nil
	}
	return w.corrupt(0, "the entry of id %d is not where the tree leads", id)
}

// QuotaKind returns the kind of quota by its name.
func QuotaKind(name string) (int, error) {
	switch name {
	case "user", "usr":
		return QuotaUser, nil
	case "group", "grp":
		return QuotaGroup, nil
	case "project", "proj", "prj":
		return QuotaProject, nil
	}
	return 0, fmt.Errorf("quota %q: there are user, group and project: %w", name, syscall.EINVAL)
}
