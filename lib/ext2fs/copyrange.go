package ext2fs

import (
	"io"
	"sync"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// copyBuf is how much CopyRange moves at a time, in bytes.
const copyBuf = 256 << 10

var copyBufs = sync.Pool{New: func() any { b := blockdev.AlignedBuf(copyBuf, 4096); return &b }}

// CopyRange copies up to n bytes at off of ip to dst at dstOff, as
// copy_file_range(2) does, and returns how many. It fails with EINVAL for ranges
// of one file that overlap and for what is no regular file. If some bytes were
// copied it does not fail.
func (ip *Inode) CopyRange(off int64, dst *Inode, dstOff, n int64, privileged bool) (int64, error) {
	switch {
	case !ip.isReg() || !dst.isReg() || off < 0 || dstOff < 0 || n < 0:
		return 0, syscall.EINVAL
	case ip == dst && off < dstOff+n && dstOff < off+n:
		return 0, syscall.EINVAL
	}
	how := writeHow(0)
	if privileged {
		how = writePrivileged
	}
	bp := copyBufs.Get().(*[]byte)
	defer copyBufs.Put(bp)
	done := int64(0)
	for done < n {
		b := (*bp)[:min(n-done, copyBuf)]
		k, err := ip.ReadAt(b, off+done)
		if err != nil && err != io.EOF {
			return done, sofar(done, err)
		}
		if k == 0 {
			break
		}
		w, err := dst.write(b[:k], dstOff+done, how)
		done += int64(w)
		if err != nil || w < k {
			return done, sofar(done, err)
		}
	}
	return done, nil
}

// sofar returns err unless some bytes have been moved.
func sofar(done int64, err error) error {
	if done > 0 {
		return nil
	}
	return err
}
