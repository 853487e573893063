// Package fsck checks and repairs ext2, ext3 and ext4 file systems, in the
// passes of e2fsck.
//
// [Check] goes through a device that nobody else writes to, and reports what it
// finds as data: each finding is a [Problem] with the code that e2fsck has for
// it, and the place. It asks through an [Asker] and never prints, prompts or
// exits. It reads metadata as it lies on the device, unverified, and trusts no
// number in it: memory is bounded by what is used of the device, every walk by
// its size.
//
//	res, err := fsck.Check(ctx, dev, fsck.Options{Mode: fsck.ModeNo, Force: true})
//
// # Problems
//
// The table (table.go) has a row for each problem: its code, what it means, what
// is proposed, what a run that must not ask (preen) does about it, and the group
// for which one question is asked. A pass calls checker.fix with a code and a
// place; whether to do what the row proposes is decided in ask.go alone.
//
// # Passes
//
//	0   super.go, super_check.go, journal.go, orphan.go, late.go: superblock and
//	    descriptors, backups, journal replay, orphans, resize inode
//	1   pass1*.go, badblocks.go, badlist.go, unshare.go, reloc.go: each inode by itself, who claims which
//	    blocks; 1B to 1D (pass1b.go) give blocks that are claimed twice
//	    to one of their users, 1E makes extent trees anew
//	2   pass2*.go, htree.go: entries of directories, and their indexes
//	3   pass3.go, lpf.go: that each directory can be reached; 3A (rehash.go)
//	    builds directories anew
//	4   pass4.go: link counts
//	5   pass5.go: bitmaps and counts
//
// Some findings change what earlier passes were based on: then the check starts
// again from the beginning.
//
// # Goroutines
//
// Scouts (ahead.go) run passes 1 and 2 ahead of them, on pieces of the inode tables
// and on batches of directory blocks in the order of the disk, as long as they find
// nothing. What they note is taken over in order; an inode or a block with
// a finding, or on which something earlier bears, is checked by the pass itself, while
// no scout is at work, and after a write what scouts had looked at
// before it counts no longer. So the findings, their order, and what
// is written do not depend on the number of goroutines ([Options.Threads]).
//
// # Order of writing
//
// Before the first write the superblock on the device is marked not clean, and
// it is marked clean by the last one. Metadata is written through, in an order
// such that a run that is killed leaves nothing worse than it found: copies of blocks,
// new maps and new directories go to free blocks, and are flushed
// before the one write of an inode that makes them count; what they replace is freed in
// memory only, and on the device by pass 5, after everything that could refer to it.
// All writes go through the given device, so that a [blockdev.Undo] there can
// take them back.
package fsck
