package fsck

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Options say how a file system is checked. The zero value asks its Asker, and
// takes a file system that says it is clean at its word.
type Options struct {
	Mode  Mode
	Asker Asker // nil: told nothing, and answered no

	Force       bool   // check even what says it is clean
	SbBlock     uint64 // superblock to use, in blocks of SbSize; 0 is the primary
	SbSize      int    // bytes of a block; 0: found out
	Journal     blockdev.Device
	NoJournal   bool // do not make a journal anew
	NoReadahead bool // ask for nothing before it is needed
	Threads     int  // goroutines that go ahead of passes 1, 2 and 5; 0: as many as there are CPUs, -1: none

	OnlyJournal     bool // replay the journal, and nothing else
	CompressDirs    bool // rebuild all directories, as -D
	NoOptimize      bool // leave extent trees as they are
	FixesOnly       bool // optimize nothing
	BmapToExtents   bool // turn block maps into extents
	CheckEncoding   bool // look at the encoding of names even where it is not enforced
	Discard         bool // discard free blocks when the file system is found consistent
	BrokenClock     bool // times prove nothing
	AcceptTimeFudge bool // times less than a day ahead are in order
	OnBattery       bool // a periodic check can wait twice as long
	DirSlack        int  // percent of blocks of rebuilt directories left free

	Unshare  bool             // copy blocks that the feature shared_blocks lets files share, and drop it
	Fragment func(f Fragment) // told of each place where a file does not go on behind what comes before
	// What is known of directories, 12 bytes of each and 24 of each of their blocks,
	// goes to an unlinked file in the folder Scratch ("": the system's for such
	// files) once it takes more than Memory bytes. 0: it stays in memory;
	// -1: it goes there at once.
	Memory      int64
	Scratch     string
	ScratchFrom uint64 // only for file systems with so many directories

	BadBlocks *BadBlocks        // to be listed as bad
	Overrides map[Code]Override // what is done about single problems

	Now  func() time.Time
	Rand func([]byte) // random bytes, for a UUID that is missing and the number of a new journal's first transaction
}

// Result says how a check ended.
type Result struct {
	Clean    bool // nothing was checked, since it says it is clean
	Aborted  bool // the check did not come to its end
	Fixed    bool // problems were corrected
	Changed  bool // the file system was written to
	Left     bool // problems are left
	Replayed bool // the journal was replayed
	Restarts int

	JournalSkipped bool // the journal holds something and was not replayed, since nothing may be written

	Found map[Code]int // how often each problem was found

	Inodes, InodesUsed uint64
	Blocks, BlocksUsed uint64 // in blocks of the file system
	FreeBlocks         uint64
	Features           string // by name
	Counts

	BlocksRead, BlocksWritten uint64
	MaxCount, MntCount        int
	CheckEvery, SinceCheck    time.Duration
	LastState                 uint16 // s_state as it was
	SuperError                error  // what is wrong with the superblock, if nothing could be checked
	BackupUsed                uint64 // block of the superblock that was used instead of the primary
	MemoryBitmaps             uint64
	Scanned                   bool     // bad blocks were looked for
	BadFound                  []uint64 // and these found
	Spilled                   uint64   // bytes of lists that went to a scratch file
}

// Fragment is a place where a file does not go on on the device behind what comes
// before.
type Fragment struct {
	Ino       ondisk.Ino
	Dir, Reg  bool
	Want, Blk ondisk.Fsblk // where it would go on, and where it does
	Lblk, Len uint64
	Extent    bool // it is an extent, not a block of a map
}

// Counts are what a file system holds, by kind.
type Counts struct {
	Fragmented, FragmentedDirs uint64
	Dirs, Regular, Chardevs    uint64
	Blockdevs, Fifos, Sockets  uint64
	Symlinks, FastSymlinks     uint64
	Links                      uint64 // to regular files, beyond the first
	Ind, Dind, Tind            uint64 // inodes with such blocks
	BadBlocks, LargeFiles      uint64
	ExtentDepth                [8]uint64
}

// add adds what to has more than from.
func (n *Counts) add(to, from *Counts) {
	for _, f := range []struct{ n, to, from *uint64 }{
		{&n.Fragmented, &to.Fragmented, &from.Fragmented}, {&n.FragmentedDirs, &to.FragmentedDirs, &from.FragmentedDirs},
		{&n.Dirs, &to.Dirs, &from.Dirs}, {&n.Regular, &to.Regular, &from.Regular}, {&n.Chardevs, &to.Chardevs, &from.Chardevs},
		{&n.Blockdevs, &to.Blockdevs, &from.Blockdevs}, {&n.Fifos, &to.Fifos, &from.Fifos}, {&n.Sockets, &to.Sockets, &from.Sockets},
		{&n.Symlinks, &to.Symlinks, &from.Symlinks}, {&n.FastSymlinks, &to.FastSymlinks, &from.FastSymlinks},
		{&n.Links, &to.Links, &from.Links}, {&n.Ind, &to.Ind, &from.Ind}, {&n.Dind, &to.Dind, &from.Dind}, {&n.Tind, &to.Tind, &from.Tind},
		{&n.BadBlocks, &to.BadBlocks, &from.BadBlocks}, {&n.LargeFiles, &to.LargeFiles, &from.LargeFiles},
	} {
		*f.n += *f.to - *f.from
	}
	for i := range n.ExtentDepth {
		n.ExtentDepth[i] += to.ExtentDepth[i] - from.ExtentDepth[i]
	}
}

func (r *Result) count(p *Problem) {
	if r.Found == nil {
		r.Found = map[Code]int{}
	}
	r.Found[p.Code]++
}

// checker is the state of one check.
type checker struct {
	ctx  context.Context
	dev  blockdev.Device
	opts Options
	res  *Result
	now  uint32

	latch   [latches]latchState
	always  map[Code]bool
	fixed   bool // something counts as corrected
	noFix   bool // what is done now is not a correction
	changed bool // inodes, bitmaps or the superblock were changed
	invalid bool // something is left as it was
	dirtied bool // the superblock on the device says that it is not clean

	foundSuper []byte   // the primary superblock, before it was made to say so
	gen        uint64   // counts changes that what was looked at ahead of a pass may not show
	report     *report  // of a scout
	scratch    *scratch // nil: all stays in memory

	current inodeState // what pass 1 looks at
	nodes   [][]byte   // of its extent tree, by level

	super         // pass 0
	restart  bool // once the passes are through
	maps          // pass 1
	dirState      // passes 2 and 3
}

// Check checks the file system on dev, and repairs it as far as o says. The
// device stays the caller's; nobody else may write to it meanwhile. A result
// comes with any error, to tell how far the check came: the error is
// ErrAborted, ErrManual, that of ctx, or of the device.
func Check(ctx context.Context, dev blockdev.Device, o Options) (*Result, error) {
	if o.Asker == nil {
		o.Asker = nobody{}
	}
	if o.Unshare {
		o.Force = true
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	res := &Result{}
	var (
		err                   error
		fixed, chg, dirty     bool
		replayed, journalGone bool
		always                = map[Code]bool{}
		foundSuper            []byte
	)
	for range 12 {
		c := &checker{ctx: ctx, dev: dev, opts: o, res: res, always: always, fixed: fixed, changed: chg, dirtied: dirty}
		c.now = uint32(o.Now().Unix())
		c.replayed, c.journalGone, c.foundSuper = replayed, journalGone, foundSuper
		if o.Memory != 0 {
			c.scratch = &scratch{dir: o.Scratch, limit: max(o.Memory, 0)}
		}
		err = c.guard()
		c.scratch.close()
		fixed, chg, dirty, replayed, journalGone = c.fixed, c.changed, c.dirtied, c.replayed, c.journalGone
		foundSuper = c.foundSuper
		res.Fixed, res.Changed, res.Left, res.Replayed = fixed, chg, c.invalid, replayed
		if !errors.Is(err, errRestart) {
			break
		}
		res.Restarts++
	}
	if errors.Is(err, errRestart) {
		err = fmt.Errorf("%w: it started again too often", ErrAborted)
	}
	if err != nil {
		res.Aborted, res.Left = true, true
	}
	return res, err
}

// guard runs the passes and turns what they panic with into an error.
func (c *checker) guard() (err error) {
	defer func() {
		switch x := recover().(type) {
		case nil:
		case halt:
			err = x.err
			if !errors.Is(err, errRestart) {
				c.invalid = true
			}
			if e := c.trySave(); e != nil && errors.Is(err, errRestart) {
				err = e
			}
		default:
			panic(fmt.Sprintf("%v\n%s", x, debug.Stack()))
		}
	}()
	return c.run()
}

// trySave is saveState for a run that has ended early, perhaps since the device
// cannot be written.
func (c *checker) trySave() (err error) {
	defer func() {
		switch x := recover().(type) {
		case nil:
		case halt:
			err = x.err
		default:
			panic(x)
		}
	}()
	return c.saveState()
}

// run is one go through all passes.
func (c *checker) run() error {
	c.poll() // before anything is written
	c.openSuper()
	c.res.LastState = c.sb.State.Get()
	if !c.onlyReplay {
		c.checkSuper()
	}
	c.checkJournal()
	if c.onlyReplay {
		c.abort(fmt.Errorf("%w: %w", ErrUnusable, errOdd))
	}
	if c.opts.OnlyJournal {
		return c.saveState()
	}
	if c.skip() {
		c.res.Clean = true
		c.summary()
		return nil
	}
	c.beforePasses()
	for _, pass := range []func(){c.pass1, c.pass2, c.pass3, c.pass4, c.pass5} {
		if err := c.ctx.Err(); err != nil {
			c.abort(err)
		}
		pass()
	}
	c.afterPasses()
	if c.restart {
		return errRestart
	}
	return nil
}

func (c *checker) canWrite() bool { return c.opts.Mode != ModeNo }

// begin announces a pass.
func (c *checker) begin(code Code) {
	c.opts.Asker.Pass(code)
	if c.res.Found == nil {
		c.res.Found = map[Code]int{}
	}
}

// poll ends the check if it was cancelled.
func (c *checker) poll() {
	if err := c.ctx.Err(); err != nil {
		c.abort(err)
	}
}

func (c *checker) isDirMode(mode uint16) bool { return mode&ondisk.ModeFmt == ondisk.ModeDir }
