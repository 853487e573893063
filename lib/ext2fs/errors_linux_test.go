package ext2fs

import (
	"context"
	"log/slog"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// onLog calls a function with each message, as it is logged.
type onLog func(message string)

func (f onLog) Enabled(context.Context, slog.Level) bool { return true }
func (f onLog) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}
func (f onLog) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f onLog) WithGroup(string) slog.Handler      { return f }

// TestErrorAndAbort has the journal abort while an inconsistency is about to stop
// the file system: one of them does.
func TestErrorAndAbort(t *testing.T) {
	fs := &FS{dev: memImage(t, testfs.Mke2fs(t, testfs.Spec{Size: 8 << 20})), policy: ErrorsRO, stopped: make(chan struct{})}
	said := 0
	fs.log = slog.New(onLog(func(message string) {
		if said++; said == 2 { // after "inconsistency"
			fs.aborted(syscall.EIO)
		}
	}))
	_ = fs.corrupt(0, ondisk.Corrupt("test", 0, "nothing"))
	<-fs.stopped
	if fs.failed.Load() == nil || !fs.readOnly.Load() || said < 2 {
		t.Fatalf("not stopped, after %d messages", said)
	}
}
