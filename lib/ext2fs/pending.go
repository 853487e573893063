package ext2fs

import (
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// What other files of the package will have.

type (
	inodeXattr struct{}
)

var (
	opsXattr buffer.Ops = plainOps{"attribute block"}
)

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

func (ip *Inode) inlineEA() ([]byte, error)                       { panic("inlineEA") }
func (ip *Inode) inlineMax() int                                  { panic("inlineMax") }
func (ip *Inode) inlineInit() (bool, error)                       { panic("inlineInit") }
func (ip *Inode) inlineResize(n int) ([]byte, error)              { panic("inlineResize") }
func (ip *Inode) inlineDrop() error                               { panic("inlineDrop") }
func (ip *Inode) inlineGet() ([]byte, error)                      { panic("inlineGet") }
func (ip *Inode) inlineRead(p []byte, off int64) (int, error)     { panic("inlineRead") }
func (ip *Inode) inlineWriteAt(p []byte, off int64) (bool, error) { return false, nil }
func (ip *Inode) inlineTruncate(size int64) (bool, error)         { return false, nil }
func (ip *Inode) inlineConvert() error                            { panic("inlineConvert") }
