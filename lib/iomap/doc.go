// Package iomap is the vocabulary of one question: which device range holds
// this range of a file, for this operation? It has the mapping types, the
// operation flags and the begin / I/O / ioend life cycle of the kernel's
// fs/iomap, and an executor that moves the bytes in process.
//
// A file system answers by implementing File. Whoever moves bytes asks Begin
// for a mapping that covers the position, does the I/O on the device range it
// names, and reports a write that needs metadata by IOEnd:
//
//	pair, err := f.Begin(iomap.Write, off, n)
//	m := pair.Dest(iomap.Write)
//	dev.WriteAt(p[:k], m.At(off))
//	if m.Type == iomap.Unwritten { f.IOEnd(iomap.IOEnd{Flags: iomap.EndUnwritten, Pos: off, Written: k}) }
//
// Values of types and flags are those of the fuse-iomap protocol, so that a
// server can send them as they are. Offsets, lengths and addresses are bytes.
//
// The package knows no file system and keeps no state but pooled buffers.
// Nothing here locks a file: the caller of the executor keeps truncation and
// overlapping writes away, as doc comments of the functions say.
package iomap
