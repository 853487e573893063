package ondisk

import (
	"fmt"
	"strings"
	"syscall"
)

// CorruptError says what is wrong with the bytes of a structure and where. It
// unwraps to EUCLEAN, or to EBADMSG if a checksum does not match.
type CorruptError struct {
	What  string // the structure: "extent header"
	Off   int    // byte offset of the bad field in it
	Why   string // "magic 0x0"
	Ino   Ino    // inode that owns it, if one does
	Block Fsblk  // block it lies in, if known
	Csum  bool   // the checksum does not match
}

// Error implements error.
func (e *CorruptError) Error() string {
	var b strings.Builder
	b.WriteString(e.What)
	if e.Ino != 0 {
		fmt.Fprintf(&b, " of inode %d", e.Ino)
	}
	if e.Block != 0 {
		fmt.Fprintf(&b, " in block %d", e.Block)
	}
	fmt.Fprintf(&b, ": %s (offset %d)", e.Why, e.Off)
	return b.String()
}

// Unwrap returns the errno that a system call reports for it.
func (e *CorruptError) Unwrap() error {
	if e.Csum {
		return EBADMSG
	}
	return EUCLEAN
}

// Corrupt returns a *CorruptError for the field at byte off of what.
func Corrupt(what string, off int, format string, args ...any) *CorruptError {
	return &CorruptError{What: what, Off: off, Why: fmt.Sprintf(format, args...)}
}

// BadCsum returns a *CorruptError for a checksum that does not match.
func BadCsum(what string, off int, stored, computed uint32) *CorruptError {
	return &CorruptError{What: what, Off: off, Csum: true,
		Why: fmt.Sprintf("checksum %#x, should be %#x", stored, computed)}
}

// At returns err with the inode and block filled in where it is a
// *CorruptError that does not name them; other errors are returned as they are.
func At(err error, ino Ino, blk Fsblk) error {
	if e, ok := err.(*CorruptError); ok && e != nil {
		c := *e
		if c.Ino == 0 {
			c.Ino = ino
		}
		if c.Block == 0 {
			c.Block = blk
		}
		return &c
	}
	return err
}

// UnsupportedError names features that this library cannot handle. It unwraps
// to EOPNOTSUPP; it is not corruption.
type UnsupportedError struct {
	Feature string // names or bits, as people write them
}

// Error implements error.
func (e *UnsupportedError) Error() string { return "unsupported feature: " + e.Feature }

// Unwrap returns EOPNOTSUPP.
func (e *UnsupportedError) Unwrap() error { return syscall.EOPNOTSUPP }
