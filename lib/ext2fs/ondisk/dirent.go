package ondisk

import (
	"encoding/binary"
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// Dirent is the fixed part of a directory entry; NameLen bytes of name follow.
// Without the filetype feature FileType is the upper half of the name's length
// and therefore 0.
// Kernel: filesystems/ext4/directory.rst, "Linear (Classic) Directories".
type Dirent struct {
	Inode    endian.LE32 // inode: 0 in an entry not in use
	Len      endian.LE16 // rec_len: encoded, see RecLen
	NameLen  [1]byte     // name_len: bytes
	FileType [1]byte     // file_type: FT…
}

// DirTail ends a directory block that has a checksum. To readers who do not
// know it, it is an entry not in use.
type DirTail struct {
	Zero1    endian.LE32 // det_reserved_zero1
	Len      endian.LE16 // det_rec_len: DirTailSize
	Zero2    [1]byte     // det_reserved_zero2
	FileType [1]byte     // det_reserved_ft: FTDirCsum
	Checksum endian.LE32 // det_checksum: of the bytes before the tail
}

var ( // sizes on disk
	_ [DirentHeaderSize]byte = [unsafe.Sizeof(Dirent{})]byte{}
	_ [DirTailSize]byte      = [unsafe.Sizeof(DirTail{})]byte{}
)

const (
	DirentHeaderSize = 8  // bytes of Dirent
	DirentMin        = 12 // smallest entry: a name of one to four bytes
	DirTailSize      = 12 // bytes of DirTail
)

// File types in Dirent.FileType.
const (
	FTUnknown = 0
	FTReg     = 1
	FTDir     = 2
	FTChr     = 3
	FTBlk     = 4
	FTFIFO    = 5
	FTSock    = 6
	FTLnk     = 7
	FTDirCsum = 0xde // only of a DirTail
)

// FileType returns the type that a directory entry for an inode of the given
// mode has.
func FileType(mode uint16) uint8 {
	switch mode & ModeFmt {
	case ModeReg:
		return FTReg
	case ModeDir:
		return FTDir
	case ModeChr:
		return FTChr
	case ModeBlk:
		return FTBlk
	case ModeFIFO:
		return FTFIFO
	case ModeSock:
		return FTSock
	case ModeLnk:
		return FTLnk
	}
	return FTUnknown
}

// DirentSize returns the bytes that an entry needs for a name of n bytes.
func DirentSize(n int) int { return (DirentHeaderSize + n + 3) &^ 3 }

// RecLen returns the length in bytes that the stored rec_len v means. Blocks of
// 64 KiB need 17 bits for it: the upper ones lie in the two lowest of v.
func RecLen(v uint16, blockSize int) int {
	switch {
	case blockSize < 1<<16:
		return int(v)
	case v == 0 || v == 0xffff:
		return blockSize
	}
	return int(v&^3) | int(v&3)<<16
}

// EncodeRecLen returns how rec_len stores n, at most blockSize and a multiple of 4.
func EncodeRecLen(n, blockSize int) uint16 {
	if n == 1<<16 && blockSize == 1<<16 {
		return 0xffff
	}
	return uint16(n)
}

// Direntry is a directory entry as DirentAt found it.
type Direntry struct {
	Ino      Ino    // 0: not in use
	Off      int    // bytes from the start of the block
	RecLen   int    // bytes up to the next entry
	FileType uint8  // FT…
	Name     []byte // in the block
}

// DirentAt returns the entry at byte off of the directory block b, in place.
// It fails with a *CorruptError unless the entry and its name lie within b and
// the rest of b is nothing or has room for another entry. To leave out the
// tail, pass a block without it, but always its whole size as blockSize.
func DirentAt(b []byte, off, blockSize int) (e Direntry, err error) {
	if off < 0 || off > len(b)-DirentMin {
		return e, Corrupt("directory entry", off, "no room for an entry")
	}
	p := b[off:]
	e.Ino = Ino(binary.LittleEndian.Uint32(p))
	e.Off = off
	e.RecLen = RecLen(binary.LittleEndian.Uint16(p[4:]), blockSize)
	n := int(p[6])
	e.FileType = p[7]
	switch rest := len(p) - e.RecLen; {
	case e.RecLen < DirentMin || e.RecLen&3 != 0:
		return e, Corrupt("directory entry", off, "length %d", e.RecLen)
	case rest < 0 || rest > 0 && rest < DirentMin:
		return e, Corrupt("directory entry", off, "length %d does not fit the block", e.RecLen)
	case DirentSize(n) > e.RecLen:
		return e, Corrupt("directory entry", off, "name of %d bytes in an entry of %d", n, e.RecLen)
	}
	e.Name = p[DirentHeaderSize : DirentHeaderSize+n : DirentHeaderSize+n]
	return e, nil
}

// PutDirent writes an entry of recLen bytes at byte off of a directory block of
// blockSize bytes. The caller has seen that recLen fits there and holds name,
// which is at most NameLen bytes. What follows the name is left as it is.
func PutDirent(b []byte, off, recLen, blockSize int, name []byte, ino Ino, ftype uint8) {
	p := b[off : off+recLen]
	binary.LittleEndian.PutUint32(p, uint32(ino))
	binary.LittleEndian.PutUint16(p[4:], EncodeRecLen(recLen, blockSize))
	p[6] = uint8(len(name))
	p[7] = ftype
	n := copy(p[DirentHeaderSize:], name)
	// The padding reaches the disk too: nothing of what was there before may.
	clear(p[DirentHeaderSize+n : min(DirentSize(len(name)), recLen)])
}

// SetRecLen changes the length of the entry at byte off.
func SetRecLen(b []byte, off, recLen, blockSize int) {
	binary.LittleEndian.PutUint16(b[off+4:], EncodeRecLen(recLen, blockSize))
}

// FindDirent looks in b, a directory block without its tail, for name. It
// returns the entry and the offset of the entry before it, -1 if it is the first
// one. found is false if no entry in use has that name. It fails with a
// *CorruptError where an entry it passes is not well formed.
func FindDirent(b []byte, name []byte, blockSize int) (e Direntry, prev int, found bool, err error) {
	prev = -1
	n := len(name)
	if n == 0 {
		return e, prev, false, nil
	}
	for off := 0; off < len(b); {
		p := b[off:]
		if len(p) < DirentMin {
			_, err = DirentAt(b, off, blockSize)
			return e, prev, false, err
		}
		rl := int(binary.LittleEndian.Uint16(p[4:]))
		if blockSize == 1<<16 {
			rl = RecLen(uint16(rl), blockSize)
		}
		if int(p[6]) == n && p[DirentHeaderSize] == name[0] && DirentHeaderSize+n <= len(p) &&
			binary.LittleEndian.Uint32(p) != 0 && string(p[DirentHeaderSize:DirentHeaderSize+n]) == string(name) {
			e, err = DirentAt(b, off, blockSize)
			return e, prev, err == nil, err
		}
		if rl < DirentMin || rl&3 != 0 {
			_, err = DirentAt(b, off, blockSize)
			return e, prev, false, err
		}
		prev = off
		off += rl
		if off > len(b) {
			_, err = DirentAt(b, prev, blockSize)
			return e, prev, false, err
		}
	}
	return e, prev, false, nil
}

// CheckDirents checks that b, a directory block without its tail, is a chain of
// well-formed entries that ends where b ends.
func CheckDirents(b []byte, blockSize int) error {
	for off := 0; off < len(b); {
		e, err := DirentAt(b, off, blockSize)
		if err != nil {
			return err
		}
		if e.Ino != 0 && len(e.Name) == 0 {
			return Corrupt("directory entry", off, "no name")
		}
		off += e.RecLen
	}
	return nil
}

// FindRoom looks in b, a directory block without its tail, for the first entry
// with room for a further one for name. dup is true if it passed an entry of
// that name instead. It fails with a *CorruptError as FindDirent does.
func FindRoom(b []byte, name []byte, blockSize int) (off int, room, dup bool, err error) {
	need := DirentSize(len(name))
	for off < len(b) {
		p := b[off:]
		if len(p) < DirentMin {
			_, err := DirentAt(b, off, blockSize)
			return off, false, false, err
		}
		// What DirentAt checks, in few steps: each entry of a block is passed here.
		n, recLen := int(p[6]), RecLen(binary.LittleEndian.Uint16(p[4:]), blockSize)
		used, rest := DirentSize(n), len(p)-recLen
		if recLen < DirentMin || recLen < used || recLen&3 != 0 || rest < 0 || rest > 0 && rest < DirentMin {
			_, err := DirentAt(b, off, blockSize)
			return off, false, false, err
		}
		if binary.LittleEndian.Uint32(p) == 0 {
			used = 0
		} else if n == len(name) && string(p[DirentHeaderSize:DirentHeaderSize+n]) == string(name) {
			return off, false, true, nil
		}
		if recLen-used >= need {
			return off, true, false, nil
		}
		off += recLen
	}
	return off, false, false, nil
}

// InsertDirent adds an entry in the room that FindRoom found at off.
func InsertDirent(b []byte, off, blockSize int, name []byte, ino Ino, ftype uint8) {
	p := b[off:]
	recLen := RecLen(binary.LittleEndian.Uint16(p[4:]), blockSize)
	if binary.LittleEndian.Uint32(p) != 0 {
		used := DirentSize(int(p[6]))
		SetRecLen(b, off, used, blockSize)
		off += used
		recLen -= used
	}
	PutDirent(b, off, recLen, blockSize, name, ino, ftype)
}

// RemoveDirent removes the entry e that FindDirent found after the one at prev:
// its room joins that one's, or it stays as an entry not in use where it is the
// block's first. The bytes of the name are cleared.
func RemoveDirent(b []byte, e Direntry, prev, blockSize int) {
	if prev < 0 {
		clear(b[e.Off : e.Off+4])
		clear(b[e.Off+6 : e.Off+e.RecLen])
		return
	}
	p := RecLen(binary.LittleEndian.Uint16(b[prev+4:]), blockSize)
	SetRecLen(b, prev, p+e.RecLen, blockSize)
	clear(b[e.Off : e.Off+e.RecLen])
}

// DirArea returns the part of a directory block that entries fill: all of it,
// or what comes before the checksum. Index nodes are one entry not in use.
func DirArea(b []byte, csum bool) []byte {
	if csum && dxCountOffset(b) == 0 {
		return b[:len(b)-DirTailSize]
	}
	return b
}

// InitDirBlock makes b a directory block without entries in use.
func InitDirBlock(b []byte, csum bool) {
	clear(b)
	n := len(b)
	if csum {
		InitDirTail(b)
		n -= DirTailSize
	}
	SetRecLen(b, 0, n, len(b))
}

// dirTail returns the tail of a directory block, nil if it has none.
func dirTail(b []byte) *DirTail {
	t := endian.View[DirTail](b[len(b)-DirTailSize:])
	if t.Zero1.Get() != 0 || t.Len.Get() != DirTailSize || t.Zero2[0] != 0 || t.FileType[0] != FTDirCsum {
		return nil
	}
	return t
}

// InitDirTail writes the tail of a directory block, without its checksum.
func InitDirTail(b []byte) {
	t := endian.View[DirTail](b[len(b)-DirTailSize:])
	*t = DirTail{FileType: [1]byte{FTDirCsum}}
	t.Len.Set(DirTailSize)
}

// VerifyDirBlock checks a block of a directory when it is read: as an index
// node if it looks like one, else as a chain of entries. csum says whether the
// file system has metadata_csum; seed is InodeSeed of the directory.
func VerifyDirBlock(b []byte, csum bool, seed uint32) error {
	if csum {
		if c := dxCountOffset(b); c != 0 {
			if err := verifyDxCsum(b, c, seed); err != nil {
				return err
			}
			// Readers without the index walk the node as entries.
			return CheckDirents(b, len(b))
		}
		t := dirTail(b)
		if t == nil {
			return BadCsum("directory block", len(b)-DirTailSize, 0, Crc32c(seed, b[:len(b)-DirTailSize]))
		}
		if c := Crc32c(seed, b[:len(b)-DirTailSize]); c != t.Checksum.Get() {
			return BadCsum("directory block", len(b)-4, t.Checksum.Get(), c)
		}
		return CheckDirents(b[:len(b)-DirTailSize], len(b))
	}
	return CheckDirents(b, len(b))
}

// SealDirBlock sets the checksum of a directory block that leaves memory. A
// block without room for one is left as it is.
func SealDirBlock(b []byte, seed uint32) {
	if c := dxCountOffset(b); c != 0 {
		sealDx(b, c, seed)
	} else if t := dirTail(b); t != nil {
		t.Checksum.Set(Crc32c(seed, b[:len(b)-DirTailSize]))
	}
}
