package iomap

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"
)

const (
	bounceSize = 64 << 10 // the largest block
	alignment  = 4096     // of buffers, for direct I/O
)

// aligned returns n bytes at a page boundary.
func aligned(n int) []byte {
	b := make([]byte, n+alignment)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (alignment - 1))
	return b[skip : skip+n : skip+n]
}

var (
	bounce = sync.Pool{New: func() any { b := aligned(bounceSize); return &b }}
	zeros  = aligned(bounceSize) // never written
)

// errNotBlocks says that a file answered a write with a mapping that cannot
// be written to.
var errNotBlocks = errors.New("iomap: write without blocks")

// Exec moves the bytes of files in process, by reads and writes of Dev. It is
// safe for concurrent use. Its methods allocate nothing.
type Exec struct {
	Dev       Device
	BlockSize int // of the file system, at most 64 KiB

	// WriteNew writes to blocks that no committed mapping points to, if it is
	// set, instead of Dev.WriteAt. It may keep a copy to write later.
	WriteNew func(p []byte, off int64) (int, error)
}

// Read reads from f at off, up to size, the file's size. Reading at or beyond
// it returns 0 and io.EOF; fewer bytes than len(p) come only with io.EOF or an
// error. Bytes of p beyond those it returns may be changed. The caller keeps
// truncation away.
func (x *Exec) Read(f File, p []byte, off, size int64) (int, error) {
	if off >= size {
		return 0, io.EOF
	}
	n, whole := len(p), p
	if int64(n) > size-off {
		n = int(size - off)
	}
	for done := 0; done < n; {
		pos := off + int64(done)
		pair, err := f.Begin(0, pos, int64(n-done))
		if err != nil {
			return done, err
		}
		m := &pair.Read
		k := n - done
		if int64(k) > m.End()-pos {
			k = int(m.End() - pos)
		}
		switch m.Type {
		case Mapped:
			// The block that holds the end of the file is read to its end
			// where p has room: a whole sector needs no bounce buffer.
			full := k
			if end := (pos + int64(k) + int64(x.BlockSize) - 1) &^ int64(x.BlockSize-1); end <= m.End() && end-pos <= int64(len(whole)-done) {
				full = int(end - pos)
			}
			_, err = x.Dev.ReadAt(whole[done:done+full], m.At(pos))
		case Inline:
			var got int
			got, err = f.(InlineFile).ReadInline(p[done:done+k], pos)
			if got < k && (err == nil || err == io.EOF) {
				clear(p[done+got : done+k])
				err = nil
			}
		default:
			clear(p[done : done+k])
		}
		if err != nil {
			return done, err
		}
		done += k
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write writes p to f at off and reports it by IOEnd where the file system has
// to know: blocks were unwritten, or the write ends beyond size, the file's
// size. It returns the bytes written; the file has them. The caller keeps
// truncation away, and other writes of the same blocks where p covers a part
// of a block; he has zeroed what lies between size and off.
func (x *Exec) Write(f File, p []byte, off, size int64) (int, error) {
	var (
		done  int
		flags EndFlags
		err   error
	)
	for done < len(p) {
		pos := off + int64(done)
		count := int64(len(p) - done)
		var pair Pair
		if pair, err = f.Begin(Write, pos, count); err != nil {
			break
		}
		m := pair.Dest(Write)
		k := min(count, m.End()-pos)
		b := p[done : done+int(k)]
		switch {
		case m.Type == Inline:
			var got int
			got, err = f.(InlineFile).WriteInline(b, pos)
			if err == nil && got < len(b) {
				err = io.ErrShortWrite
			}
		case m.Type == Unwritten, m.Type == Mapped && m.Flags&New != 0:
			if m.Type == Unwritten {
				flags |= EndUnwritten
			}
			err = x.writePadded(b, pos, m)
		case m.Type == Mapped:
			_, err = x.Dev.WriteAt(b, m.At(pos))
		default:
			err = fmt.Errorf("%w: %v", errNotBlocks, m.Type)
		}
		if err != nil {
			if e := f.End(Write, pos, count, 0, *m); e != nil {
				err = errors.Join(err, e)
			}
			break
		}
		if m.Flags&WantEnd != 0 {
			if err = f.End(Write, pos, count, k, *m); err != nil {
				break
			}
		}
		done += int(k)
	}
	if off+int64(done) > size {
		flags |= EndAppend
	}
	if done > 0 && flags != 0 {
		if _, e := f.IOEnd(IOEnd{Flags: flags, Pos: off, Written: int64(done), Addr: NullAddr}); e != nil {
			return 0, e
		}
	}
	return done, err
}

// writePadded writes p at file offset pos into m, whose blocks hold nothing
// yet: what p does not cover of the first and last block becomes zeros.
func (x *Exec) writePadded(p []byte, pos int64, m *Mapping) error {
	mask := int64(x.BlockSize - 1)
	if head := pos & mask; head != 0 || int64(len(p)) <= mask {
		n := min(x.BlockSize-int(head), len(p))
		if err := x.writeBlock(p[:n], int(head), m.At(pos-head)); err != nil {
			return err
		}
		p, pos = p[n:], pos+int64(n)
	}
	if n := len(p) &^ int(mask); n > 0 {
		if _, err := x.writeNew(p[:n], m.At(pos)); err != nil {
			return err
		}
		p, pos = p[n:], pos+int64(n)
	}
	if len(p) > 0 {
		return x.writeBlock(p, 0, m.At(pos))
	}
	return nil
}

// writeBlock writes a block of zeros with p at head to device offset at.
func (x *Exec) writeBlock(p []byte, head int, at int64) error {
	bp := bounce.Get().(*[]byte)
	b := (*bp)[:x.BlockSize]
	clear(b[:head])
	clear(b[head+copy(b[head:], p):])
	_, err := x.writeNew(b, at)
	bounce.Put(bp)
	return err
}

func (x *Exec) writeNew(p []byte, at int64) (int, error) {
	if x.WriteNew != nil {
		return x.WriteNew(p, at)
	}
	return x.Dev.WriteAt(p, at)
}

// ZeroRange makes n bytes of f at off read as zeros: written blocks are
// overwritten, holes and unwritten blocks stay. The caller keeps truncation
// and writes of the range away.
func (x *Exec) ZeroRange(f File, off, n int64) error {
	for n > 0 {
		pair, err := f.Begin(Zero, off, n)
		if err != nil {
			return err
		}
		m := pair.Dest(Zero)
		k := min(n, m.End()-off)
		switch m.Type {
		case Mapped:
			err = x.ZeroDevice(m.At(off), k)
		case Inline:
			for j := int64(0); j < k && err == nil; {
				l := min(k-j, bounceSize)
				_, err = f.(InlineFile).WriteInline(zeros[:l], off+j)
				j += l
			}
		}
		if err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// ZeroDevice makes n bytes of the device at off read as zeros.
func (x *Exec) ZeroDevice(off, n int64) error {
	if n > 4*bounceSize {
		mask := int64(alignment - 1)
		head := -off & mask
		mid := (n - head) &^ mask
		if head > 0 {
			if _, err := x.Dev.WriteAt(zeros[:head], off); err != nil {
				return err
			}
		}
		if err := x.Dev.ZeroOut(off+head, mid); err != nil {
			return err
		}
		off, n = off+head+mid, n-head-mid
	}
	for n > 0 {
		k := min(n, bounceSize)
		if _, err := x.Dev.WriteAt(zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}
