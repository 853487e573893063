package ext2fs

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// imageHeader begins a file that e2image wrote without -r or -Q: superblock and
// descriptors, inode tables, inode bitmaps and block bitmaps, one after the
// other. Fields that are for people have no name.
type imageHeader struct {
	Magic          endian.LE32
	_              [16 + 64 + 32 + 4 + 4 + 64 + 16]byte
	BlockSize      endian.LE32
	_              [8*4 + 4 + 4 + 4 + 4 + 7*4]byte
	OffsetSuper    endian.LE32
	OffsetInode    endian.LE32
	OffsetInodeMap endian.LE32
	OffsetBlockMap endian.LE32
	_              [8 * 4]byte
}

// E2ImageMagic begins a file that e2image wrote in its own format,
// little-endian.
const E2ImageMagic = 0x7f2bb710

var _ [332]byte = [unsafe.Sizeof(imageHeader{})]byte{}

// readImageHeader reads the header of an image of e2image.
func readImageHeader(dev blockdev.Device) (*imageHeader, error) {
	b := make([]byte, unsafe.Sizeof(imageHeader{}))
	v := Survey{dev: dev}
	if err := v.read("header of an image", b, 0); err != nil {
		return nil, err
	}
	h := endian.View[imageHeader](b)
	if m := h.Magic.Get(); m != E2ImageMagic {
		return nil, surveyErr(ReasonNoImage, "not an image of e2image: its magic number is %#x", m)
	}
	if n := h.BlockSize.Get(); n < ondisk.MinBlockSize || n > ondisk.MaxBlockSize || n&(n-1) != 0 {
		return nil, surveyErr(ReasonBlockSize, "an image of e2image with blocks of %d bytes", n)
	}
	return h, nil
}

// imageBitmap returns n bytes, those of group g, of the bitmaps, which follow
// each other there.
func (v *Survey) imageBitmap(g ondisk.Group, which BitmapKind, n uint32) ([]byte, error) {
	at, what, cannot := v.image.OffsetBlockMap.Get(), "block bitmap", ReasonShort
	if which == InodeBitmap {
		at, what = v.image.OffsetInodeMap.Get(), "inode bitmap"
	}
	b := make([]byte, n)
	off := int64(at)/int64(v.blockSize)*int64(v.blockSize) + int64(g)*int64(n)
	if err := v.read(what, b, off); err != nil {
		return nil, surveyErr(cannot, "%s of group %d: %v", what, g, err)
	}
	return b, nil
}
