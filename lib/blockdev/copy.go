package blockdev

import (
	"bytes"
	"io"
)

// copyPiece is what Copy and MemOf move at a time, in bytes.
const copyPiece = 64 << 10

// Copy writes the content of dev to w, which reads as zeros, such as a file that
// was just truncated to the size: zeros are left out.
func Copy(w io.WriterAt, dev Device) error {
	buf := AlignedBuf(copyPiece, 4096)
	for off := int64(0); off < dev.Size(); off += copyPiece {
		p := buf[:min(copyPiece, dev.Size()-off)]
		if _, err := dev.ReadAt(p, off); err != nil {
			return err
		}
		for at := 0; at < len(p); at += pageSize {
			pg := p[at:min(at+pageSize, len(p))]
			if bytes.Equal(pg, zeroPage.data[:len(pg)]) {
				continue
			}
			if _, err := w.WriteAt(pg, off+int64(at)); err != nil {
				return err
			}
		}
	}
	return nil
}

// MemOf returns a Mem with the content of dev.
func MemOf(dev Device) (*Mem, error) {
	m := NewMem(dev.Size())
	return m, Copy(m, dev)
}
