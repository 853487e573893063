package ext2fs

import (
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// What other files of the package will have.

type runState uint8

const (
	runHole runState = iota
	runWritten
	runUnwritten
)

type run struct {
	lblk  ondisk.Lblk
	pblk  ondisk.Fsblk
	n     uint32
	state runState
}

type (
	inodeMap   struct{}
	inodeXattr struct{}
)

var (
	opsExtent   buffer.Ops = plainOps{"extent node"}
	opsIndirect buffer.Ops = plainOps{"indirect block"}
	opsXattr    buffer.Ops = plainOps{"attribute block"}
)

// MAP

// releaseMap gives up the inode's reservation, if it has one; no lock is held.
func (ip *Inode) releaseMap() {}

// mapHolds tells whether releaseMap has something to do; it is cheap, and no
// lock is held, but the caller has the last pin.
func (ip *Inode) mapHolds() bool { return false }

func (ip *Inode) mapRun(lblk ondisk.Lblk, max uint32) (run, error) { panic("mapRun") }
func (ip *Inode) insertRun(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32, unwritten bool) error {
	panic("insertRun")
}
func (ip *Inode) dirBlock(lblk ondisk.Lblk, ops buffer.Ops) (*buffer.Buf, error) { panic("dirBlock") }
func (ip *Inode) appendMetaBlock(h *jbd2.Handle, lblk ondisk.Lblk, ops buffer.Ops) (*buffer.Buf, error) {
	panic("appendMetaBlock")
}

// initMap gives a fresh inode an empty mapping: the root of an extent tree, or
// no indirect blocks. mapMu is held, or ip is not shared.
func (ip *Inode) initMap() {}

// mappingChanged is called when others have written i_block. mapMu is held
// exclusively.
func (ip *Inode) mappingChanged() {}

// truncateTo: mu held exclusively, no handle.
func (ip *Inode) truncateTo(size int64) error { panic("truncateTo") }

// freeAllBlocks frees all data and mapping blocks of an inode that is evicted,
// in handles of its own, keeping it on the orphan list.
func (ip *Inode) freeAllBlocks() error { panic("freeAllBlocks") }

// XATTR

func (ip *Inode) xattrGet(index uint8, name string, buf []byte) ([]byte, error) { panic("xattrGet") }
func (ip *Inode) xattrSet(h *jbd2.Handle, index uint8, name string, value []byte, flags int) error {
	panic("xattrSet")
}
func (ip *Inode) xattrList(fn func(index uint8, name []byte, size int) bool) error {
	panic("xattrList")
}
func (ip *Inode) xattrCredits(size int) int { panic("xattrCredits") }

// xattrFreeAll drops all attributes of an inode that is evicted; it may restart
// h. xattrFreeCredits is what it needs to begin.
func (ip *Inode) xattrFreeAll(h *jbd2.Handle) error { return nil }
func (ip *Inode) xattrFreeCredits() int             { return 0 }

func (fs *FS) aclInit(h *jbd2.Handle, dir, ip *Inode, mode *uint16, umask uint16) error {
	panic("aclInit")
}
func (ip *Inode) aclChmod(h *jbd2.Handle, mode uint16) error { panic("aclChmod") }

func (ip *Inode) inlineEA() ([]byte, error)                                     { panic("inlineEA") }
func (ip *Inode) inlineMax() int                                                { panic("inlineMax") }
func (ip *Inode) inlineInit() (bool, error)                                     { panic("inlineInit") }
func (ip *Inode) inlineResize(n int) ([]byte, error)                            { panic("inlineResize") }
func (ip *Inode) inlineDrop() error                                             { panic("inlineDrop") }
func (ip *Inode) inlineGet() ([]byte, error)                                    { panic("inlineGet") }
func (ip *Inode) inlineWrite(h *jbd2.Handle, off int64, p []byte) (bool, error) { panic("inlineWrite") }
func (ip *Inode) inlineConvert(h *jbd2.Handle) error                            { panic("inlineConvert") }

func (fs *FS) replayFastCommits(tags []fcTag) error {
	return &ondisk.UnsupportedError{Feature: "fast commit replay"}
}
