package ext2fs

import "github.com/e2kit/e2kit/lib/ext2fs/ondisk"

// Statfs is what statfs(2) tells of a file system; space is in blocks.
type Statfs struct {
	Blocks uint64 // of the file system; without Options.MinixDF, without its overhead
	Bfree  uint64 // free
	Bavail uint64 // free to those who may not use the reserve
	Files  uint64 // inodes
	Ffree  uint64 // free inodes
}

// Statfs returns the use of space, as the kernel counts it.
func (fs *FS) Statfs() Statfs {
	f := fs.FreeSpace()
	st := Statfs{Blocks: f.Blocks, Bfree: f.Free, Files: f.Inodes, Ffree: f.FreeIno}
	// What the super-user may use alone, and, with extents, what is kept for
	// mappings: a fiftieth, but no more than 4096 clusters.
	kept := fs.reservedBlocks()
	if fs.hasExtents {
		kept += min(uint64(fs.blocks)>>fs.clusterBits/50, 4096) << fs.clusterBits
	}
	st.Bavail = st.Bfree - min(kept, st.Bfree)
	if !fs.opts.MinixDF {
		st.Blocks -= min(f.Overhead, f.Blocks)
	}
	return st
}

// reservedBlocks returns how many blocks are for the super-user alone.
func (fs *FS) reservedBlocks() (n uint64) {
	fs.Super(func(s *ondisk.Super) { n = s.RBlocksCount() })
	return n
}
