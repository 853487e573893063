package blockdev

import (
	"bytes"
	"context"
	"errors"
	"syscall"
)

// FindBad reads the first blocks blocks of dev, which have size bytes each, and
// returns those that cannot be read. With write it also writes each with all bits
// turned over, reads it again, and puts back what was there, which takes a device
// that does not answer from a cache: a crash meanwhile may leave
// some blocks turned over. progress, if not nil, is told what is done.
func FindBad(ctx context.Context, dev Device, size int, blocks uint64, write bool, progress func(done uint64)) (bad []uint64, err error) {
	const many = 64
	was, turned, got := AlignedBuf(size*many, 4096), AlignedBuf(size*many, 4096), AlignedBuf(size*many, 4096)
	for b := uint64(0); b < blocks; b += many {
		if err := ctx.Err(); err != nil {
			return bad, err
		}
		if progress != nil {
			progress(b)
		}
		n := int(min(many, blocks-b))
		ok, err := tryBlocks(dev, int64(b)*int64(size), was[:n*size], turned[:n*size], got[:n*size], write)
		if err != nil {
			return bad, err
		}
		for i := 0; !ok && i < n; i++ {
			lo, hi := i*size, (i+1)*size
			good, err := tryBlocks(dev, int64(b)*int64(size)+int64(lo), was[lo:hi], turned[lo:hi], got[lo:hi], write)
			if err != nil {
				return bad, err
			}
			if !good {
				bad = append(bad, b+uint64(i))
			}
		}
	}
	return bad, nil
}

// tryBlocks tells whether what lies at off can be read, and written.
func tryBlocks(dev Device, off int64, was, turned, got []byte, write bool) (ok bool, err error) {
	if _, err := dev.ReadAt(was, off); err != nil {
		return false, unlessBad(err)
	}
	if !write {
		return true, nil
	}
	for i, x := range was {
		turned[i] = ^x
	}
	_, err = dev.WriteAt(turned, off)
	if err == nil {
		if _, err = dev.ReadAt(got, off); err == nil {
			ok = bytes.Equal(got, turned)
		}
	}
	_, back := dev.WriteAt(was, off)
	if back == nil {
		if _, back = dev.ReadAt(got, off); back == nil {
			ok = ok && bytes.Equal(got, was)
		}
	}
	if back != nil && err == nil {
		err = back
	}
	if err != nil {
		return false, unlessBad(err)
	}
	return ok, nil
}

// unlessBad returns nil for what a bad block fails with.
func unlessBad(err error) error {
	if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.EILSEQ) {
		return nil
	}
	return err
}
