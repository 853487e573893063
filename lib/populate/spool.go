package populate

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// zstdWindow is the largest window that a zstd stream may ask for: what it
// takes of memory.
const zstdWindow = 64 << 20

// decompressor returns what r holds, decompressed if its first bytes say that
// it is gzip or zstd. The caller calls done at the end.
func decompressor(r *bufio.Reader) (_ io.Reader, compressed bool, done func(), err error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, false, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		return z, true, func() {}, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, true, nil, err
		}
		return z, true, z.Close, nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return nil, true, nil, badInput("it is compressed by bzip2; gzip and zstd are read")
	case bytes.Equal(magic, []byte{0xfd, '7', 'z', 'X'}):
		return nil, true, nil, badInput("it is compressed by xz; gzip and zstd are read")
	}
	return r, false, func() {}, nil
}

// section is bytes that can be read anywhere.
type section struct {
	r    io.ReaderAt
	size int64
}

// spool returns the uncompressed bytes of r, in a file that goes away when the
// tree is closed. r is a regular file, which is taken as it is if it is not
// compressed, or anything else.
func (t *Tree) spool(ctx context.Context, r io.Reader) (section, error) {
	in := io.Reader(r)
	f, isFile := r.(*os.File)
	var st os.FileInfo
	if isFile {
		var err error
		if st, err = f.Stat(); err != nil {
			return section{}, err
		}
		isFile = st.Mode().IsRegular()
	}
	var from int64
	if isFile {
		var err error
		if from, err = f.Seek(0, io.SeekCurrent); err != nil {
			return section{}, err
		}
		in = io.NewSectionReader(f, from, max(st.Size()-from, 0))
	}
	br := bufio.NewReaderSize(in, 256<<10)
	d, compressed, done, err := decompressor(br)
	if err != nil {
		return section{}, err
	}
	defer done()
	if isFile && !compressed {
		return section{io.NewSectionReader(f, from, st.Size()-from), st.Size() - from}, nil
	}
	return t.unpack(ctx, d)
}

// unpack copies r to a file without a name. Zeros become holes in it.
func (t *Tree) unpack(ctx context.Context, r io.Reader) (section, error) {
	tmp, err := t.tempFile()
	if err != nil {
		return section{}, fmt.Errorf("a place to unpack to (Options.TempDir): %w", err)
	}
	buf := make([]byte, 256<<10)
	var n int64
	for {
		if err := interrupted(ctx); err != nil {
			return section{}, err
		}
		k, err := io.ReadFull(r, buf)
		if k > 0 && !isZero(buf[:k]) {
			if _, err := tmp.WriteAt(buf[:k], n); err != nil {
				return section{}, fmt.Errorf("unpacking it (Options.TempDir): %w", err)
			}
		}
		n += int64(k)
		if err == io.EOF || err == io.ErrUnexpectedEOF && k < len(buf) && cleanEnd(r) {
			break
		}
		if err != nil {
			return section{}, inputErr(err)
		}
	}
	if err := tmp.Truncate(n); err != nil {
		return section{}, err
	}
	return section{tmp, n}, nil
}

// cleanEnd tells an end of r from one in the middle of compressed data, which
// io.ReadFull reports alike.
func cleanEnd(r io.Reader) bool {
	var b [1]byte
	_, err := r.Read(b[:])
	return err == io.EOF
}

// inputErr makes an error of a decompressor unwrap to an errno.
func inputErr(err error) error {
	var no syscall.Errno
	if err == nil || asErrno(err, &no) {
		return err
	}
	return fmt.Errorf("it cannot be decompressed: %w (%w)", err, syscall.EINVAL)
}

// tempFile makes a file that has no name, where that is possible, and goes away
// when the tree is closed.
func (t *Tree) tempFile() (*os.File, error) {
	tmp, err := os.CreateTemp(t.opt.TempDir, "populate-")
	if err != nil {
		return nil, err
	}
	t.closers = append(t.closers, tempFile{tmp})
	return tmp, removeOpen(tmp.Name())
}

// tempFile is a file that goes away when it is closed.
type tempFile struct{ *os.File }

func (f tempFile) Close() error {
	err := f.File.Close()
	_ = os.Remove(f.Name()) // where an open file cannot be removed
	return err
}
