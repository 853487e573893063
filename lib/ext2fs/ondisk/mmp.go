package ondisk

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// MMP is the block by which hosts that share a device keep each other from
// mounting the file system at once. Kernel: filesystems/ext4/mmp.rst.
type MMP struct {
	Magic         endian.LE32      `ext4:"mmp_magic"` // MMPMagic
	Seq           endian.LE32      `ext4:"mmp_seq"`   // changes while it is in use; or MMPSeqClean, MMPSeqFsck
	Time          endian.LE64      `ext4:"mmp_time"`  // of the last change, seconds; for people
	NodeName      [64]byte         `ext4:"mmp_nodename"`
	BdevName      [32]byte         `ext4:"mmp_bdevname"`
	CheckInterval endian.LE16      `ext4:"mmp_check_interval"` // seconds
	Pad1          endian.LE16      `ext4:"mmp_pad1"`
	Pad2          [226]endian.LE32 `ext4:"mmp_pad2"`
	Checksum      endian.LE32      `ext4:"mmp_checksum"`
}

// Values of MMP.
const (
	MMPMagic    = 0x004d4d50
	MMPSeqClean = 0xff4d4d50 // not mounted
	MMPSeqFsck  = 0xe24d4d50 // being checked
	MMPSeqMax   = 0xe24d4d4f // largest of a mount
)

var _ [1024]byte = [unsafe.Sizeof(MMP{})]byte{}

// Verify checks the magic, and the checksum if the file system has them. fsSeed
// is Super.CsumSeed.
func (m *MMP) Verify(fsSeed uint32, csum bool) error {
	if x := m.Magic.Get(); x != MMPMagic {
		return Corrupt("mmp block", 0, "magic %#x", x)
	}
	if c := m.csum(fsSeed); csum && c != m.Checksum.Get() {
		return BadCsum("mmp block", int(unsafe.Offsetof(m.Checksum)), m.Checksum.Get(), c)
	}
	return nil
}

// Seal sets the checksum.
func (m *MMP) Seal(fsSeed uint32) { m.Checksum.Set(m.csum(fsSeed)) }

func (m *MMP) csum(fsSeed uint32) uint32 {
	return Crc32c(fsSeed, endian.Bytes(m)[:unsafe.Offsetof(m.Checksum)])
}
