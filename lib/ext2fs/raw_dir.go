package ext2fs

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// RawDirent is an entry of a directory as it lies in its block.
type RawDirent struct {
	ondisk.Direntry              // Off counts from the start of the block, or of the inline part
	Lblk            ondisk.Lblk  // block of the directory
	Pblk            ondisk.Fsblk // 0 if the directory is inline
	Deleted         bool         // found in the unused end of another entry
	Tail            bool         // it is no entry but the place of the block's checksum
	Csum            uint32       // of a Tail
}

// DirFlags say what Dirents shows besides entries in use.
type DirFlags int

const (
	DirEmpty      DirFlags = 1 << iota // entries not in use
	DirDeleted                         // what looks like deleted entries
	DirTail                            // the places of checksums
	DirUnverified                      // nothing more: checksums are not checked
)

// Dirents calls fn with the entries of directory ino until it returns false.
// Names are valid during the call. Index nodes look like entries not in use, as
// they do to readers that know no index. Blocks whose entries run out of them
// are passed over from there on, checksums are checked, and the first thing
// that was wrong is returned at the end.
func (r *Raw) Dirents(ino ondisk.Ino, flags DirFlags, fn func(e *RawDirent) bool) error {
	raw, err := r.Inode(ino)
	if err != nil {
		return err
	}
	return r.DirentsOf(ino, raw, flags, fn)
}

// DirentsOf is Dirents for an inode that was read.
func (r *Raw) DirentsOf(ino ondisk.Ino, raw ondisk.RawInode, flags DirFlags, fn func(e *RawDirent) bool) error {
	if raw.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeDir {
		return syscall.ENOTDIR
	}
	if raw.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
		return r.inlineDirents(ino, raw, flags, fn)
	}
	var bad error
	err := r.DirBlocks(ino, raw, func(lblk ondisk.Lblk, pblk ondisk.Fsblk, b []byte, err error) bool {
		if err == nil && r.geo.hasCsum && !r.o.IgnoreCsum && flags&DirUnverified == 0 {
			err = r.verifyDirBlock(ino, raw, b)
		}
		if err != nil && bad == nil {
			bad = ondisk.At(err, ino, pblk)
		}
		if b == nil {
			return true
		}
		more, err := r.ScanDirBlock(b, flags, func(e *RawDirent) bool {
			e.Lblk, e.Pblk = lblk, pblk
			return fn(e)
		})
		if err != nil && bad == nil {
			bad = ondisk.At(err, ino, pblk)
		}
		return more
	})
	if bad == nil {
		bad = err
	}
	return bad
}

// ScanDirBlock calls fn with the entries of b, a block of a directory, until it
// returns false, and then returns false. The error says where entries run out
// of the block.
func (r *Raw) ScanDirBlock(b []byte, flags DirFlags, fn func(e *RawDirent) bool) (bool, error) {
	var e RawDirent
	t := dirTailIn(b)
	area := ondisk.DirArea(b, r.geo.hasCsum && t != nil)
	more, err := scanDirents(&e, area, r.geo.blockSize, flags, func(e *RawDirent) bool {
		// The checksum of an index node is dressed up as one of entries.
		if r.geo.hasCsum && t != nil && e.Off == len(b)-ondisk.DirTailSize {
			return true
		}
		return fn(e)
	})
	if more && flags&DirTail != 0 && t != nil && len(area) < len(b) {
		e.Direntry = ondisk.Direntry{Off: len(area), RecLen: ondisk.DirTailSize, FileType: ondisk.FTDirCsum}
		e.Tail, e.Csum = true, t.Checksum.Get()
		more = fn(&e)
	}
	return more, err
}

// verifyDirBlock checks no more of a block than its checksum.
func (r *Raw) verifyDirBlock(ino ondisk.Ino, raw ondisk.RawInode, b []byte) error {
	err := ondisk.VerifyDirBlock(b, true, r.InodeSeed(ino, raw))
	if e, ok := err.(*ondisk.CorruptError); ok && !e.Csum {
		return nil // what is wrong with the entries is told where they are read
	}
	return err
}

// dirTailIn returns the tail of a directory block, nil if it has none.
func dirTailIn(b []byte) *ondisk.DirTail {
	t := endian.View[ondisk.DirTail](b[len(b)-ondisk.DirTailSize:])
	if t.Zero1.Get() != 0 || t.Len.Get() != ondisk.DirTailSize || t.Zero2[0] != 0 || t.FileType[0] != ondisk.FTDirCsum {
		return nil
	}
	return t
}

// DirBlocks calls fn with each block of a directory that its mapping names, b
// being nil and err set where it cannot be read, until fn returns false. Blocks
// past the directory's size are not among them.
func (r *Raw) DirBlocks(ino ondisk.Ino, raw ondisk.RawInode, fn func(lblk ondisk.Lblk, pblk ondisk.Fsblk, b []byte, err error) bool) error {
	end := r.geo.blocksOf(max(r.Size(raw), 0))
	budget := uint64(r.geo.blocks)
	return r.WalkBlocks(ino, raw, func(run RawRun) bool {
		if run.Level > 0 {
			return true
		}
		for i := range run.Len {
			lblk, pblk := run.Lblk+ondisk.Lblk(i), run.Pblk+ondisk.Fsblk(i)
			if uint64(lblk) >= end {
				break // of an extent that reaches past the end
			}
			if budget--; budget == 0 {
				return false
			}
			b, err := r.dirBlock(pblk, min(uint64(run.Len-i), end-uint64(lblk)))
			if !fn(lblk, pblk, b, err) {
				return false
			}
			if err != nil && pblk >= r.geo.blocks {
				break // nor can the rest of the run
			}
		}
		return true
	})
}

// dirBlock returns block b of a directory, of which n lie together from b on.
func (r *Raw) dirBlock(b ondisk.Fsblk, n uint64) ([]byte, error) {
	if r.ahead == nil {
		return r.Block(b)
	}
	a, bs := r.ahead, r.geo.blockSize
	if b < a.first || b >= a.first+ondisk.Fsblk(a.n) {
		n = min(n, uint64(len(a.buf)/bs))
		if r.ReadBlocks(a.buf[:int(n)*bs], b) != nil {
			return r.Block(b) // not all of them can be read
		}
		a.first, a.n = b, n
	}
	i := int(b-a.first) * bs
	return a.buf[i : i+bs], nil
}

// inlineDirents is Dirents for a directory in its inode. Its ".." is the first
// four bytes of i_block; "." is nowhere.
func (r *Raw) inlineDirents(ino ondisk.Ino, raw ondisk.RawInode, flags DirFlags, fn func(e *RawDirent) bool) error {
	e := RawDirent{Direntry: ondisk.Direntry{Ino: ino, RecLen: ondisk.DirentMin, Name: []byte(".")}}
	if !fn(&e) {
		return nil
	}
	block := raw.Base().Block[:]
	e.Direntry = ondisk.Direntry{Ino: ondisk.Ino(binary.LittleEndian.Uint32(block)), RecLen: ondisk.DirentMin, Name: []byte("..")}
	if !fn(&e) {
		return nil
	}
	rest, bad := r.Inline(ino, raw)
	for i, area := range [][]byte{block[4:], rest[len(block):]} {
		e := RawDirent{Lblk: 0}
		size := len(area)
		if i == 1 && size == 0 {
			break
		}
		more, err := scanDirents(&e, area, size, flags, fn)
		if err != nil && bad == nil {
			bad = ondisk.At(err, ino, 0)
		}
		if !more {
			break
		}
	}
	return bad
}

// scanDirents calls fn with the entries in area; it returns false if fn did.
func scanDirents(e *RawDirent, area []byte, blockSize int, flags DirFlags, fn func(e *RawDirent) bool) (bool, error) {
	real := 0 // offset of the next entry of the chain; what is before it is deleted
	for off := 0; off+ondisk.DirentHeaderSize <= len(area); {
		d, err := looseDirent(area, off, blockSize)
		if err != nil {
			return true, err
		}
		if d.Ino != 0 || flags&DirEmpty != 0 {
			e.Direntry, e.Deleted = d, off < real
			if !fn(e) {
				return false, nil
			}
		}
		if off == real {
			real += d.RecLen
		}
		end := off + d.RecLen
		if used := ondisk.DirentSize(len(d.Name)); flags&DirDeleted != 0 && used != d.RecLen {
			off += used
			for off < end && !validChain(area, off, end, blockSize) {
				off += 4
			}
			continue
		}
		off = end
	}
	return true, nil
}

// looseDirent is ondisk.DirentAt for entries as e2fsprogs takes them: an entry
// without a name may be as small as its header.
func looseDirent(b []byte, off, blockSize int) (ondisk.Direntry, error) {
	p := b[off:]
	d := ondisk.Direntry{Off: off, Ino: ondisk.Ino(binary.LittleEndian.Uint32(p)), FileType: p[7]}
	d.RecLen = ondisk.RecLen(binary.LittleEndian.Uint16(p[4:]), blockSize)
	n := int(p[6])
	if d.RecLen < ondisk.DirentHeaderSize || d.RecLen&3 != 0 || d.RecLen > len(p) || n+ondisk.DirentHeaderSize > d.RecLen {
		return d, ondisk.Corrupt("directory entry", off, "length %d, name of %d bytes", d.RecLen, n)
	}
	d.Name = p[ondisk.DirentHeaderSize : ondisk.DirentHeaderSize+n : ondisk.DirentHeaderSize+n]
	return d, nil
}

// validChain says whether entries that start at off end at end.
func validChain(b []byte, off, end, blockSize int) bool {
	for off < end && off+ondisk.DirentHeaderSize <= end {
		d, err := looseDirent(b[:end], off, blockSize)
		if err != nil {
			return false
		}
		off += d.RecLen
	}
	return off == end
}

// Lookup returns the inode of the entry name of directory dir. It fails with
// ENOENT and ENOTDIR.
func (r *Raw) Lookup(dir ondisk.Ino, name string) (ondisk.Ino, error) {
	ino, _, err := r.FindDirent(dir, name)
	return ino, err
}

// FindDirent returns the inode and where the entry name of directory dir is. It
// looks at all entries in turn: an index may be what is broken.
func (r *Raw) FindDirent(dir ondisk.Ino, name string) (ondisk.Ino, RawDirent, error) {
	var found RawDirent
	ok := false
	err := r.Dirents(dir, 0, func(e *RawDirent) bool {
		if string(e.Name) == name {
			found, ok = *e, true
			found.Name = nil
			return false
		}
		return true
	})
	switch {
	case ok:
		return found.Ino, found, nil
	case err != nil:
		return 0, found, err
	}
	return 0, found, syscall.ENOENT
}

// Readlink returns the target of a symbolic link.
func (r *Raw) Readlink(ino ondisk.Ino) (string, error) {
	raw, err := r.Inode(ino)
	if err != nil {
		return "", err
	}
	if raw.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeLnk {
		return "", syscall.EINVAL
	}
	f, err := r.FileOf(ino, raw)
	if err != nil {
		return "", err
	}
	if f.size > int64(r.geo.blockSize) {
		return "", ondisk.At(ondisk.Corrupt("symbolic link", 4, "target of %d bytes", f.size), ino, 0)
	}
	b := make([]byte, f.size)
	if len(b) == 0 {
		return "", nil
	}
	if _, err := f.ReadAt(b, 0); err != nil {
		return "", fmt.Errorf("symbolic link %d: %w", ino, err)
	}
	return string(b), nil
}

// Mode returns the mode of an inode.
func (r *Raw) Mode(ino ondisk.Ino) (uint16, error) {
	raw, err := r.Inode(ino)
	if err != nil {
		return 0, err
	}
	return raw.Base().Mode.Get(), nil
}
