package fsck

import (
	"context"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// Replay brings the file system on dev to the state that its journal holds, and
// does nothing else: the result says whether there was anything to do. journal is
// the device of an external journal, or nil. It ends with ErrManual if the journal
// is damaged, and with the error of ctx if that ends first; then some blocks of
// the journal may have been written home already, and all will be by the next run.
func Replay(ctx context.Context, dev, journal blockdev.Device) (*Result, error) {
	return Check(ctx, dev, Options{Mode: ModePreen, OnlyJournal: true, Journal: journal})
}
