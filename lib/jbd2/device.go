package jbd2

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
)

// Device is what the header of an external journal says: an ext2 superblock
// with the feature JOURNAL_DEV, before the journal superblock.
type Device struct {
	BlockSize  int      // bytes
	Blocks     uint32   // of the device, and so of the log
	SuperBlock uint32   // log block of the journal superblock, for Config
	UUID       [16]byte // by which a file system names the journal
}

// deviceHeader is an ext2 superblock, as far as it matters here.
type deviceHeader struct {
	_               [4]byte
	BlocksCount     endian.LE32 // s_blocks_count_lo
	_               [16]byte
	LogBlockSize    endian.LE32 // s_log_block_size
	_               [28]byte
	Magic           endian.LE16 // s_magic
	_               [38]byte
	FeatureIncompat endian.LE32 // s_feature_incompat
	FeatureROCompat endian.LE32 // s_feature_ro_compat
	UUID            [16]byte    // s_uuid
	_               [0x3fc - 0x78]byte
	Checksum        endian.LE32 // s_checksum
}

const (
	extMagic           = 0xef53
	incompatJournalDev = 0x8
	roMetadataCsum     = 0x400
)

// OpenDevice reads the header of dev, an external journal. It fails with a
// CorruptError if dev is none.
func OpenDevice(dev blockdev.Device) (Device, error) {
	b := make([]byte, 1024)
	if _, err := dev.ReadAt(b, 1024); err != nil {
		return Device{}, fmt.Errorf("read journal device: %w", err)
	}
	bad := func(why string, args ...any) (Device, error) {
		return Device{}, corrupt("journal device", 0, why, args...)
	}
	h := endian.View[deviceHeader](b)
	switch log := h.LogBlockSize.Get(); {
	case h.Magic.Get() != extMagic:
		return bad("no ext2 superblock")
	case h.FeatureIncompat.Get()&incompatJournalDev == 0:
		return bad("a file system, not a journal")
	case log > 6:
		return bad("block size 2^%d", log)
	case h.FeatureROCompat.Get()&roMetadataCsum != 0 && h.Checksum.Get() != crc32c(^uint32(0), b[:0x3fc]):
		return Device{}, &CorruptError{What: "journal device", Why: "bad superblock checksum", Csum: true}
	}
	d := Device{BlockSize: 1024 << h.LogBlockSize.Get(), Blocks: h.BlocksCount.Get(), UUID: h.UUID}
	d.SuperBlock = uint32(1024/d.BlockSize) + 1
	if int64(d.Blocks) > dev.Size()/int64(d.BlockSize) {
		return bad("%d blocks on a device of %d", d.Blocks, dev.Size()/int64(d.BlockSize))
	}
	return d, nil
}
