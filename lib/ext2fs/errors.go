package ext2fs

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ErrorPolicy is what is done about an inconsistency found in the metadata.
type ErrorPolicy uint16

const (
	ErrorsDefault  ErrorPolicy = 0                     // as the superblock says
	ErrorsContinue ErrorPolicy = ondisk.ErrorsContinue // record it and go on
	ErrorsRO       ErrorPolicy = ondisk.ErrorsRO       // write nothing from then on
	ErrorsPanic    ErrorPolicy = ondisk.ErrorsPanic    // as ErrorsRO, and call Options.Panic
)

// JournalDevError is the error of Open for a file system whose journal is on
// another device, which Options.Journal does not have. It unwraps to EINVAL.
type JournalDevError struct {
	UUID [16]byte // of the journal
	Dev  uint32   // s_journal_dev: where it was last, in Linux' 32-bit encoding; 0 if not known
}

func (e *JournalDevError) Error() string {
	return "it is on another device, with UUID " + uuidString(e.UUID)
}

func (e *JournalDevError) Unwrap() error { return syscall.EINVAL }

// uuidString returns u as people write it.
func uuidString(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// errorRecord is what the superblock remembers of an inconsistency.
type errorRecord struct {
	sec   int64
	ino   uint32
	block uint64
	fn    string
	line  uint32
	code  byte
}

// Codes of s_first_error_errcode and s_last_error_errcode, by errno.
var errorCodes = []struct {
	no   syscall.Errno
	code byte
}{
	{ondisk.EUCLEAN, 16}, {ondisk.EBADMSG, 15}, {syscall.EIO, 2}, {syscall.ENOMEM, 3},
	{syscall.ENOSPC, 5}, {syscall.EROFS, 7}, {syscall.EFBIG, 8}, {syscall.EEXIST, 9},
}

func errorCode(err error) byte {
	for _, e := range errorCodes {
		if errors.Is(err, e.no) {
			return e.code
		}
	}
	return 1 // unknown
}

// corrupt records err, an inconsistency found in what belongs to inode ino (0
// for none), applies the error policy, and returns err with the inode filled
// in. Errors that are no inconsistency, as ENOSPC or one that the device
// reported, are returned as they are. It may be called with any lock held.
func (fs *FS) corrupt(ino ondisk.Ino, err error) error {
	if err == nil || !errors.Is(err, ondisk.EUCLEAN) && !errors.Is(err, ondisk.EBADMSG) {
		return err
	}
	var rec errorRecord
	if pc, _, line, ok := runtime.Caller(1); ok {
		name := runtime.FuncForPC(pc).Name()
		rec.fn, rec.line = name[strings.LastIndexByte(name, '.')+1:], uint32(line)
	}
	var c *ondisk.CorruptError
	if errors.As(err, &c) {
		if c.Ino == 0 && ino != 0 {
			err = ondisk.At(err, ino, 0)
		}
		rec.block = uint64(c.Block)
	}
	rec.ino, rec.sec, rec.code = uint32(ino), fs.now().Sec, errorCode(err)
	fs.recordError(rec, err)
	return err
}

// recordError takes rec into what the superblock will say, and applies the
// error policy once.
func (fs *FS) recordError(rec errorRecord, err error) {
	if fs.opening.Load() {
		return
	}
	fs.errMu.Lock()
	if fs.errCount == 0 {
		fs.errFirst = rec
	}
	fs.errLast = rec
	fs.errCount++
	n := fs.errCount
	fs.errMu.Unlock()
	if n <= 16 {
		fs.log.Error("inconsistency", "err", err, "inode", rec.ino, "where", rec.fn)
	}
	if fs.policy == ErrorsContinue || fs.readOnly.Swap(true) || !fs.failed.CompareAndSwap(nil, &err) {
		return // or the journal has aborted meanwhile
	}
	fs.log.Error("remounting read-only")
	go fs.stopWriting(err)
}

// stopWriting aborts the journal and puts the error record on the device, as
// the kernel does when it remounts read-only. It has its own goroutine because
// its caller may hold locks that an abort waits for; FS.Close waits for it.
func (fs *FS) stopWriting(err error) {
	defer close(fs.stopped)
	if fs.jnl != nil {
		fs.jnl.Abort(err)
	}
	if e := fs.writeErrorRecord(); e != nil {
		fs.log.Error("the error could not be recorded", "err", e)
	}
	if fs.policy == ErrorsPanic && fs.opts.Panic != nil {
		fs.opts.Panic(err)
	}
}

// logger returns l, or one that discards.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// wrap says which operation failed on what.
func wrap(op string, what any, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %v: %w", op, what, err)
}
