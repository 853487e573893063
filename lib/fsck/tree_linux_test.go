package fsck_test

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// readTree reads all files of an image: by path, type, size and a hash of the
// content, in the form of the recorded listings.
func readTree(img string) (map[string]string, error) {
	dev, err := blockdev.Open(img, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{ReadOnly: true, NoLoad: true})
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	out := map[string]string{}
	return out, walkTree(fs, ondisk.RootIno, "/", out, 0)
}

func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if x := name[i]; x <= ' ' || x > '~' || x == '%' {
			fmt.Fprintf(&b, "%%%02X", x)
		} else {
			b.WriteByte(x)
		}
	}
	return b.String()
}

func walkTree(fs *ext2fs.FS, ino ondisk.Ino, path string, out map[string]string, depth int) error {
	f, err := fs.Iget(ino)
	if err != nil {
		out[path] = "! - -"
		return nil
	}
	defer f.Put()
	var st ext2fs.Attr
	f.Attr(&st)
	typ, size, data := "?", fmt.Sprint(st.Size), "-"
	h := newHash()
	switch st.Mode & ondisk.ModeFmt {
	case ondisk.ModeDir:
		typ, size = "d", "-"
	case ondisk.ModeReg:
		typ = "f"
		data = hashFile(f, st.Size, fs)
	case ondisk.ModeLnk:
		typ = "l"
		if s, err := f.Readlink(); err != nil {
			data = "*" // encrypted
		} else {
			if len(s) < 60 {
				h.Write([]byte(s))
				data = fmt.Sprintf("%016x", h.Sum64())
			} else {
				data = "*"
			}
		}
	case ondisk.ModeChr:
		typ = "c"
		data = "*"
	case ondisk.ModeBlk:
		typ = "b"
		data = "*"
	case ondisk.ModeFIFO:
		typ = "p"
		data = "*"
	case ondisk.ModeSock:
		typ = "s"
		data = "*"
	}
	out[path] = typ + " " + size + " " + data
	if typ != "d" || depth > 100 {
		return nil
	}
	var list []treeEntry
	_ = fs.Readdir(f, 0, func(name []byte, ino ondisk.Ino, _ uint8, _ uint64) bool {
		if s := string(name); s != "." && s != ".." {
			list = append(list, treeEntry{s, ino})
		}
		return true
	})
	for _, e := range list {
		p := strings.TrimSuffix(path, "/") + "/" + escape(e.name)
		if err := walkTree(fs, e.ino, p, out, depth+1); err != nil {
			return err
		}
	}
	return nil
}

type treeEntry struct {
	name string
	ino  ondisk.Ino
}

func hashFile(f *ext2fs.Inode, size int64, fs *ext2fs.FS) string {
	h := newHash()
	bs := int64(fs.BlockSize())
	buf := make([]byte, bs)
	bad := 0
	for off := int64(0); off < size; {
		// Holes of huge files are passed over.
		if next, err := f.SeekData(off); err != nil {
			break
		} else if next > off {
			off = next / bs * bs
			if off >= size {
				break
			}
		}
		n := min(bs, size-off)
		if k, err := f.ReadAt(buf[:n], off); err != nil && k == 0 {
			bad++
			off += bs
			continue
		}
		b := buf[:n]
		for len(b) > 0 && b[len(b)-1] == 0 {
			b = b[:len(b)-1]
		}
		if len(b) > 0 {
			var no [8]byte
			binary.LittleEndian.PutUint64(no[:], uint64(off/bs))
			h.Write(no[:])
			h.Write(b)
		}
		off += bs
	}
	if bad > 0 {
		return fmt.Sprintf("E:%d", bad)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// hash64 is FNV-1a with the basis that the recorded listings start from.
type hash64 uint64

func newHash() *hash64 {
	h := hash64(0x14650fb0739d0383)
	return &h
}

func (h *hash64) Write(b []byte) {
	for _, x := range b {
		*h = (*h ^ hash64(x)) * 0x100000001b3
	}
}

func (h *hash64) Sum64() uint64 { return uint64(*h) }
