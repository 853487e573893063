package ext2fs

import (
	"fmt"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Journal opens the journal, which lies on external if the file system has it
// elsewhere. What is done with it goes to the device under r: call Forget then.
func (r *Raw) Journal(external blockdev.Device) (*jbd2.Journal, error) {
	if !r.sb.HasCompat(ondisk.CompatHasJournal) {
		return nil, fmt.Errorf("the file system has no journal: %w", syscall.ENOENT)
	}
	fs := &FS{dev: r.dev, sb: r.sb, opts: Options{Journal: external, Now: r.o.Now}, log: logger(nil)}
	if err := fs.geometry(r.sb); err != nil {
		return nil, err
	}
	cfg, err := fs.journalConfig(r.sb)
	if err != nil {
		return nil, err
	}
	cfg.Now = r.Now
	return jbd2.Open(cfg)
}
