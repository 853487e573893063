package ext2fs

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// plainOps is a kind of block that has no checksum of its own: what it holds
// is verified and sealed piece by piece, or elsewhere (a bitmap's checksum is in
// the group's descriptor).
type plainOps struct{ name string }

func (o plainOps) Name() string                                  { return o.name }
func (o plainOps) Verify([]byte, buffer.Block, buffer.Ctx) error { return nil }
func (o plainOps) Seal([]byte, buffer.Block, buffer.Ctx)         {}

// Kinds of blocks that belong to the file system as a whole.
var (
	opsSuper       buffer.Ops = superOps{}
	opsDesc        buffer.Ops = plainOps{"group descriptors"} // sealed by FS.precommit
	opsBlockBitmap buffer.Ops = plainOps{"block bitmap"}      // verified by group.load
	opsInodeBitmap buffer.Ops = plainOps{"inode bitmap"}      // verified by group.loadInodes
	opsInodeTable  buffer.Ops = plainOps{"inode table"}       // verified by FS.Iget, sealed by Inode.store
)

// superOps is the block that the superblock lies in, at byte 1024 of the device.
type superOps struct{}

func (superOps) Name() string { return "superblock" }

func superIn(data []byte) *ondisk.Super {
	off := ondisk.SuperOffset % len(data)
	return endian.View[ondisk.Super](data[off : off+ondisk.SuperSize])
}

// Verify implements buffer.Ops. The superblock is checked by Open.
func (superOps) Verify(data []byte, blk buffer.Block, _ buffer.Ctx) error {
	s := superIn(data)
	if m := s.Magic.Get(); m != ondisk.SuperMagic {
		return ondisk.At(ondisk.Corrupt("superblock", int(unsafe.Offsetof(s.Magic)), "magic %#x", m), 0, ondisk.Fsblk(blk))
	}
	return nil
}

// Seal implements buffer.Ops.
func (superOps) Seal(data []byte, _ buffer.Block, _ buffer.Ctx) { sealSuper(superIn(data)) }

func sealSuper(s *ondisk.Super) {
	if s.HasROCompat(ondisk.ROCompatMetadataCsum) {
		s.Checksum.Set(ondisk.SuperCsum(s))
	}
}
