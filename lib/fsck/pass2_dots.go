package fsck

import (
	"encoding/binary"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// checkDot checks the first entry of a directory.
func (c *checker) checkDot(s *dirScan, off int) {
	b := s.b[off:]
	ino := ondisk.Ino(binary.LittleEndian.Uint32(b))
	p := at(s.ino)
	p.Lblk = 0
	var code Code
	switch {
	case ino == 0:
		code = P2MissingDot
	case b[6] != 1 || b[8] != '.':
		code = P21stNotDot
	case b[9] != 0:
		code = P2DotNullTerm
	}
	made := false
	if code != 0 && c.fix(code, p) {
		binary.LittleEndian.PutUint32(b, uint32(s.ino))
		b[6], b[7] = 1, 0
		if c.hasFiletype {
			b[7] = ondisk.FTDir
		}
		copy(b[8:], ".\x00\x00\x00")
		made, s.dirty = true, true
		ino = s.ino
	}
	if ino != s.ino && (code == 0 || made) {
		if c.fix(P2BadInodeDot, p) {
			binary.LittleEndian.PutUint32(b, uint32(s.ino))
			s.dirty = true
		}
	}
	if rec := c.recLen(s, off); rec > ondisk.DirentMin && rec-ondisk.DirentMin > ondisk.DirentMin {
		if made || c.fix(P2SplitDot, p) {
			c.setRecLen(s, off, ondisk.DirentMin)
			s.dirty = true
			// What follows may be the ".." that the long record hides.
			if string(b[ondisk.DirentMin+ondisk.DirentHeaderSize:][:3]) != "..\x00" {
				clear(b[ondisk.DirentMin : ondisk.DirentMin+ondisk.DirentHeaderSize])
				c.setRecLen(s, off+ondisk.DirentMin, rec-ondisk.DirentMin)
			}
		}
	}
}

// checkDotDot checks the second entry of a directory and returns whether it had
// to be made: then where it leads to is left to pass 3.
func (c *checker) checkDotDot(s *dirScan, off int) bool {
	b := s.b[off:]
	ino := ondisk.Ino(binary.LittleEndian.Uint32(b))
	p := at(s.ino)
	p.Lblk = 0
	var code Code
	switch {
	case ino == 0:
		code = P2MissingDotDot
	case b[6] != 2 || b[8] != '.' || b[9] != '.':
		code = P22ndNotDotDot
	case b[10] != 0:
		code = P2DotDotNullTerm
	}
	if code != 0 && c.fix(code, p) {
		binary.LittleEndian.PutUint32(b, uint32(ondisk.RootIno))
		b[6], b[7] = 2, 0
		if c.hasFiletype {
			b[7] = ondisk.FTDir
		}
		copy(b[8:], "..\x00\x00")
		s.dirty = true
		return true
	}
	c.setDotDot(s.ino, ino)
	return false
}

// lostDotDot puts a ".." into the first block of a directory where salvaging has
// left none.
func (c *checker) lostDotDot(s *dirScan) {
	if s.lblk != 0 || s.dot != 1 || len(s.b) < 2*ondisk.DirentMin {
		return
	}
	rec := c.recLen(s, 0)
	p := at(s.ino)
	p.Lblk = 0
	if rec < 2*ondisk.DirentMin || !c.fix(P2MissingDotDot, p) {
		return
	}
	ft := uint8(0)
	if c.hasFiletype {
		ft = ondisk.FTDir
	}
	c.setRecLen(s, 0, ondisk.DirentMin)
	ondisk.PutDirent(s.b, ondisk.DirentMin, rec-ondisk.DirentMin, c.blockSize, []byte(".."), ondisk.RootIno, ft)
	c.countEntry(ondisk.RootIno)
	s.dirty = true
}
