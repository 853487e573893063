package ext2fs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// maxImageGroups bounds the memory for knowing where things are in an image of
// e2image.
const maxImageGroups = 1 << 20

// ErrNotInImage is the error of reading what an image of e2image leaves out.
var ErrNotInImage = fmt.Errorf("an image of metadata does not have it, give the device that does: %w", ondisk.ENODATA)

// OpenImage returns the file system that e2image wrote to img, without -r or -Q,
// as a device on which all is where it is in the file system: superblock,
// descriptors, bitmaps and inode tables. The rest, directories and mappings of
// files among it, is read from data, the device that the image was made of; if
// data is nil, reading it fails with ErrNotInImage. The device is read-only; to
// close it closes both. If OpenImage fails they stay the caller's.
func OpenImage(img, data blockdev.Device) (blockdev.Device, error) {
	h, err := readImageHeader(img)
	if err != nil {
		return nil, err
	}
	bs := int64(h.BlockSize.Get())
	v := Survey{dev: img}
	b := make([]byte, ondisk.SuperSize)
	if err := v.read("superblock of an image", b, bs); err != nil {
		return nil, err
	}
	sb := endian.View[ondisk.Super](b)
	if sb.Magic.Get() != ondisk.SuperMagic {
		return nil, errNotFS
	}
	geo := &FS{sb: sb}
	if err := geo.geometry(sb); err != nil {
		return nil, err
	}
	switch {
	case int64(geo.blockSize) != bs:
		return nil, surveyErr(ReasonBlockSize, "an image of e2image with blocks of %d bytes, of a file system whose blocks have %d", bs, geo.blockSize)
	case uint64(geo.groups) > maxImageGroups:
		return nil, fmt.Errorf("an image of e2image with %d groups: %w", geo.groups, syscall.EOPNOTSUPP)
	case int64(geo.groups)*int64(geo.descSize) > img.Size():
		return nil, surveyErr(ReasonShort, "an image of e2image that is too short for the descriptors of %d groups", geo.groups)
	}
	d := &imageDevice{Device: blockdev.ReadOnly(img), img: img, data: data, size: int64(geo.blocks) * bs}
	d.add(ondisk.SuperOffset, bs, ondisk.SuperSize, ondisk.SuperSize)
	if err := d.addGroups(geo, h); err != nil {
		return nil, err
	}
	slices.SortStableFunc(d.parts, func(a, b imagePart) int { return cmp.Compare(a.at, b.at) })
	return d, nil
}

// imageDevice is a file system of which an image has a part.
type imageDevice struct {
	blockdev.Device // the image: refuses to be changed
	img, data       blockdev.Device
	size            int64
	parts           []imagePart // in order of at
}

// imagePart is a range of the file system that the image has: n bytes, of which
// those from have on are ones, as the ends of bitmaps are.
type imagePart struct {
	at, in  int64 // byte of the file system, byte of the image
	n, have int64
}

func (d *imageDevice) add(at, in, n, have int64) {
	d.parts = append(d.parts, imagePart{at, in, n, have})
}

// addGroups adds descriptors and what they point to.
func (d *imageDevice) addGroups(geo *FS, h *imageHeader) error {
	bs := int64(geo.blockSize)
	start := func(off endian.LE32) int64 { return int64(off.Get()) / bs * bs }
	inodes, imap, bmap := start(h.OffsetInode), start(h.OffsetInodeMap), start(h.OffsetBlockMap)
	table := int64(geo.itableBlocks) * bs
	nmap, imapSize := int64(geo.clustersPerGroup)/8, int64(geo.inodesPerGroup)/8
	v := Survey{dev: d.img}
	block := make([]byte, bs)
	for g := range geo.groups {
		i := uint32(g) / geo.descPerBlock
		if uint32(g)%geo.descPerBlock == 0 {
			in := 2*bs + int64(i)*bs // they follow the superblock, wherever the file system has them
			if err := v.read("group descriptors of an image", block, in); err != nil {
				return err
			}
			d.add(int64(geo.descBlock(i))*bs, in, bs, bs)
		}
		off := int(uint32(g)%geo.descPerBlock) * geo.descSize
		desc := ondisk.Desc(block[off : off+geo.descSize])
		for _, p := range []struct {
			b           ondisk.Fsblk
			in, n, have int64
		}{
			{desc.InodeTable(), inodes + int64(g)*table, table, table},
			{desc.InodeBitmap(), imap + int64(g)*imapSize, bs, imapSize},
			{desc.BlockBitmap(), bmap + int64(g)*nmap, bs, nmap},
		} {
			if p.b >= geo.firstData && p.b < geo.blocks && p.n > 0 { // else nothing looks for it there
				d.add(int64(p.b)*bs, p.in, p.n, p.have)
			}
		}
	}
	return nil
}

// Size returns the size of the file system.
func (d *imageDevice) Size() int64 { return d.size }

// ReadAt reads each part of p from where it is.
func (d *imageDevice) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, &blockdev.Error{Op: "read", Off: off, Len: int64(len(p)), Err: syscall.EINVAL}
	case len(p) > 0 && off >= d.size:
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), d.size-off)]
	for n := 0; n < len(p); {
		k, err := d.readPart(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	if len(p) < want {
		return len(p), io.ErrUnexpectedEOF
	}
	return want, nil
}

// readPart reads the start of p, as far as it lies together.
func (d *imageDevice) readPart(p []byte, off int64) (int, error) {
	i, exact := slices.BinarySearchFunc(d.parts, off, func(x imagePart, off int64) int { return cmp.Compare(x.at, off) })
	if !exact {
		i--
	}
	if i >= 0 && off < d.parts[i].at+d.parts[i].n {
		x := d.parts[i]
		in := off - x.at
		if in >= x.have {
			p = p[:min(int64(len(p)), x.n-in)]
			for i := range p {
				p[i] = 0xff
			}
			return len(p), nil
		}
		p = p[:min(int64(len(p)), x.have-in)]
		return d.img.ReadAt(p, x.in+in)
	}
	if i+1 < len(d.parts) {
		p = p[:min(int64(len(p)), d.parts[i+1].at-off)]
	}
	if d.data == nil {
		return 0, &blockdev.Error{Op: "read", Off: off, Len: int64(len(p)), Err: ErrNotInImage}
	}
	return d.data.ReadAt(p, off)
}

// Close closes image and data.
func (d *imageDevice) Close() error {
	err := d.img.Close()
	if d.data != nil {
		err = errors.Join(err, d.data.Close())
	}
	return err
}
