package jbd2

import (
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
)

// Config says where a journal lies and how it is run. It does not change after
// Open.
type Config struct {
	// Dev is the device that the log lies on.
	Dev blockdev.Device
	// FSDev is the device that the logged blocks belong to; nil if it is Dev.
	FSDev blockdev.Device
	// Cache holds the blocks of FSDev. It may be nil if the journal is only read
	// and recovered.
	Cache *buffer.Cache

	// BlockSize is the size of a block of the log and of Cache, in bytes.
	BlockSize int
	// Map returns the block of Dev where a block of the log lies; nil if those
	// are the same, as on an external journal.
	Map func(logblk uint32) (devblk uint64, err error)
	// MapRun, if not nil, is asked instead of Map: it also returns how many
	// blocks of the log, at least one, lie there one after the other.
	MapRun func(logblk uint32) (devblk uint64, n uint32, err error)
	// Blocks is how many blocks the log's file or device has room for.
	Blocks uint32
	// SuperBlock is the log block of the journal superblock: 0, except on an
	// external journal, see Device.
	SuperBlock uint32
	// UUID is that of the file system; it goes into block tags.
	UUID [16]byte

	// Set and Clear are features that Load turns on and off. A version 1
	// superblock has none, whatever these say.
	Set, Clear Features

	// Interval is the most time from the first change of a transaction to its
	// commit; 0 is DefaultInterval, and less than 0 no limit.
	Interval time.Duration
	// MaxTxBlocks bounds the blocks of a transaction, beside a quarter of the
	// log; 0 is as many as fit 32 MiB.
	MaxTxBlocks int
	// PrecommitCredits is the most blocks that Precommit adds to a transaction;
	// 0 is DefaultPrecommitCredits.
	PrecommitCredits int
	// Barrier has commits and checkpoints wait for stable storage. Without it a
	// crash of the machine, but not of the program, may lose consistency.
	Barrier bool
	// Async writes commit blocks together with what they commit. It is in force
	// if the journal has checksums, and sets or clears the feature.
	Async bool
	// Now is the clock, safe for concurrent use; nil is time.Now.
	Now func() time.Time

	// Precommit, if not nil, is called when a transaction is about to be
	// committed: no handle is open, and none opens until it returns. It may
	// change blocks through tx.Handle. An error aborts the journal.
	Precommit func(tx *Tx) error
	// Committed, if not nil, is called when a transaction is durable, before
	// those who wait for it learn of it. Blocks that it freed may be used from
	// here on. It must not wait for the journal.
	Committed func(tid Tid)
	// Aborted, if not nil, is called once, when the journal aborts. It must not
	// wait for the journal.
	Aborted func(cause error)
}

// Features are feature bits, of a journal.
type Features struct{ Compat, ROCompat, Incompat uint32 }

// Defaults of a Config.
const (
	DefaultInterval         = 5 * time.Second
	DefaultPrecommitCredits = 16
)

const maxTxBytes = 32 << 20
