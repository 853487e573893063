// Package ext2fs is the ext2, ext3 and ext4 file system: everything between
// the bytes of a device and POSIX operations.
//
// An [FS] is one open file system. It owns the device for as long as it is
// open: nobody else may write to it, since metadata is cached. [FS.Close] ends
// its life; until then every method is safe for concurrent use. An [Inode] is
// an in-core inode, pinned from the [FS.Iget] that returned it to the
// [Inode.Put] that gives it back.
//
//	fs, err := ext2fs.Open(dev, ext2fs.Options{})
//	if err != nil {
//		return err
//	}
//	defer fs.Close()
//	root, err := fs.Iget(ondisk.RootIno)
//
// [Format] makes a file system; what it made can be opened.
//
// A Raw is the same file system for those who look at damage, repair it or do
// it: structures unverified, one at a time, past the journal. FS and Raw share
// the device at different times only.
//
// All changes of metadata go through handles of package jbd2, so that an
// operation is there as a whole or not at all after a crash; a file system
// without a journal uses the same handles. What POSIX says about an operation
// (errnos, times, link counts, permission bits) is decided here and nowhere
// above.
//
// # Locks
//
// In this order; who holds one may take those after it:
//
//	FS.renameMu    renames of directories, one at a time
//	Inode.mu       attributes, namespace, truncation; a parent before its
//	               child, otherwise the smaller inode number first
//	FS.dataMu      held off while frozen: writing of data
//	handle         FS.start waits for commits and for log space, so it is called
//	               with none of the locks below held
//	fm.tellMu      an inode's mapping is being told to the kernel; leads to mapMu alone
//	Inode.mapMu    the inode's bytes, its mapping tree and reservations;
//	               otherwise the smaller inode number first
//	FS.orphanMu    the orphan list and orphan file
//	group.mu       a block group's bitmaps, counts and reservations; one at a time
//	FS.pendMu, FS.dirtyMu, icache shards, inode table slots: leaves
//	buffer         inside lib/buffer and lib/jbd2
//
// Data of files is read and written under Inode.mu alone, shared. Inode.Put may
// free an unlinked inode, in transactions of its own: it is called with no
// handle open and no lock held.
package ext2fs
