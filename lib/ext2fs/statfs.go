package ext2fs

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
	st := Statfs{Blocks: f.Blocks, Bfree: f.Free, Bavail: f.Avail, Files: f.Inodes, Ffree: f.FreeIno}
	if !fs.opts.MinixDF {
		st.Blocks -= min(f.Overhead, f.Blocks)
	}
	return st
}
