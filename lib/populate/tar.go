package populate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Tar is the tar archive at path, as a source; "-" is the standard input. It
// may be compressed by gzip or zstd, which its first bytes tell. Where the same
// name comes twice, the later entry counts.
func Tar(path string) Source { return &tarSource{path: path} }

// TarReader is a tar archive that is read from r. Unless r is an *os.File of a
// regular file, uncompressed, it is unpacked to Options.TempDir first.
func TarReader(r io.Reader) Source { return &tarSource{path: "-", r: r} }

type tarSource struct {
	path string
	r    io.Reader
}

func (s *tarSource) load(ctx context.Context, t *Tree) error {
	r := s.r
	if r == nil && s.path == "-" {
		r = os.Stdin
	}
	if r == nil {
		f, err := os.Open(s.path)
		if err != nil {
			return err
		}
		t.closers = append(t.closers, f)
		r = f
	}
	sec, err := t.spool(ctx, r)
	if err != nil {
		return fmt.Errorf("archive %q: %w", s.path, inputErr(err))
	}
	if err := t.addTar(ctx, sec, 0); err != nil {
		return fmt.Errorf("archive %q: %w", s.path, err)
	}
	return nil
}

func asErrno(err error, no *syscall.Errno) bool { return errors.As(err, no) }

// tarBlob is an archive that contents lie in.
type tarBlob struct{ section }

func (b *tarBlob) open(string, int64, int64) (reader, error) { return sectionReader{b.r}, nil }

type sectionReader struct{ io.ReaderAt }

func (sectionReader) Close() error { return nil }

// addTar adds the entries of an archive to the tree.
func (t *Tree) addTar(ctx context.Context, sec section, layer int32) error {
	blob := t.addBlob(&tarBlob{sec})
	return readTar(ctx, t.store, sec, func(h *tarHeader) error {
		err := t.addHeader(blob, h, layer)
		return entryErr("entry", h.name, err)
	})
}

func (t *Tree) addHeader(blob uint32, h *tarHeader, layer int32) error {
	if h.typ == '1' {
		return t.link(h.name, h.link, layer)
	}
	n, err := t.nodeOf(blob, h)
	if err != nil {
		return err
	}
	return t.add(h.name, n, layer)
}

// nodeOf makes the inode of an entry.
func (t *Tree) nodeOf(blob uint32, h *tarHeader) (_ *node, err error) {
	n := &node{mode: uint16(h.mode & 0o7777), uid: h.uid, gid: h.gid, mtime: h.mtime, atime: h.mtime}
	if h.hasAtime {
		n.atime = h.atime
	}
	switch h.typ {
	case '0', '7', 'S':
		n.mode |= ondisk.ModeReg
		n.size, n.at, n.blob = h.size, h.at, blob
		n.aux = h.sparse
	case '2':
		n.mode = ondisk.ModeLnk | 0o777
		n.size = int64(len(h.link))
		if h.link == "" {
			return nil, badInput("a symbolic link to nothing")
		}
		if strings.IndexByte(h.link, 0) >= 0 {
			return nil, badInput("the target of a symbolic link has a NUL byte")
		}
		if n.aux, err = t.appendBytes([]byte(h.link)); err != nil {
			return nil, err
		}
	case '3', '4':
		n.mode |= ondisk.ModeChr
		if h.typ == '4' {
			n.mode ^= ondisk.ModeChr ^ ondisk.ModeBlk
		}
		if h.major > 0xfff || h.minor > 0xfffff {
			return nil, badInput("device %d, %d: ext4 has 12 and 20 bits", h.major, h.minor)
		}
		n.rdev = encodeDev(h.major, h.minor)
	case '5':
		n.mode |= ondisk.ModeDir
	case '6':
		n.mode |= ondisk.ModeFIFO
	default:
		return nil, badInput("type %q", h.typ)
	}
	if t.opt.NoXattrs {
		return n, nil
	}
	var list []xattr
	for _, x := range h.attrs {
		if !knownXattr(x.name) {
			t.warn(h.name, "attribute %s is left out: ext4 has no such namespace", x.name)
			continue
		}
		if len(x.value) > ondisk.XattrSizeMax {
			return nil, fmt.Errorf("attribute %s: %w", x.name, syscall.E2BIG)
		}
		if (x.name == xattrAccess || x.name == xattrDefault) && n.isLnk() {
			continue
		}
		list = append(list, x)
	}
	n.attrs, err = t.share(list)
	return n, err
}
