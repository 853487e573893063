package jbd2

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
)

// CorruptError is a contradiction found in a journal on disk. It unwraps to
// EUCLEAN, or to EBADMSG if a checksum does not match.
type CorruptError struct {
	What  string // the structure: "journal superblock", "descriptor block"
	Block uint32 // its block in the log
	Why   string
	Csum  bool // a checksum does not match
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s (log block %d): %s", e.What, e.Block, e.Why)
}

// Unwrap returns the errno.
func (e *CorruptError) Unwrap() error {
	if e.Csum {
		return buffer.EBADMSG
	}
	return buffer.EUCLEAN
}

func corrupt(what string, blk uint32, why string, args ...any) error {
	return &CorruptError{What: what, Block: blk, Why: fmt.Sprintf(why, args...)}
}

// UnsupportedError names journal features that this package does not know. It
// unwraps to EOPNOTSUPP.
type UnsupportedError struct {
	Set  string // "incompat" or "ro_compat"
	Bits uint32
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("journal has unknown %s features %#x", e.Set, e.Bits)
}

// Unwrap returns EOPNOTSUPP.
func (e *UnsupportedError) Unwrap() error { return syscall.EOPNOTSUPP }

var (
	// ErrNeedsRecovery is Load's error if the log has transactions that have not
	// been recovered.
	ErrNeedsRecovery error = &errnoError{"journal needs recovery", buffer.EUCLEAN}
	// ErrNoCredits is Extend's error if the transaction cannot grow: the caller
	// restarts his handle.
	ErrNoCredits error = &errnoError{"transaction cannot be extended", syscall.ENOSPC}
	// ErrTooLarge is the error of a handle that wants more credits than any
	// transaction can have.
	ErrTooLarge error = &errnoError{"more credits than a transaction can have", syscall.ENOSPC}

	errClosed error = &errnoError{"journal is closed", syscall.EROFS}
)

// errnoError is an errno with a text of its own.
type errnoError struct {
	text string
	no   syscall.Errno
}

func (e *errnoError) Error() string { return e.text }
func (e *errnoError) Unwrap() error { return e.no }

// aborted is the state of a journal that has aborted: cause is why, err what
// callers get from then on.
type aborted struct{ cause, err error }

// errnoOf returns the errno that err stands for, EIO if it is none.
func errnoOf(err error) syscall.Errno {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return syscall.EIO
}
