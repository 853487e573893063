package fsck

import (
	"fmt"
	"os"
	"unsafe"
)

// scratch is an unlinked file for lists that take too much memory: they lie in
// mappings of it, which the system can write out and take away.
type scratch struct {
	dir   string
	limit int64 // bytes of lists in memory

	file *os.File
	size int64 // of the file
	maps [][]byte
	used int64 // bytes of lists in memory
}

// grown returns s with room for n more. Beyond the limit the room is in the
// scratch file. T has no pointers.
func grown[T any](c *checker, s []T, n int) []T {
	if len(s)+n <= cap(s) {
		return s
	}
	var zero T
	size := int64(unsafe.Sizeof(zero))
	want := max(2*cap(s), len(s)+n, 256)
	f := c.scratch
	if f == nil || f.used+(int64(want)-int64(cap(s)))*size <= f.limit {
		if f != nil {
			f.used += int64(want-cap(s)) * size
		}
		out := make([]T, len(s), want)
		copy(out, s)
		return out
	}
	b, err := f.alloc(int64(want) * size)
	if err != nil {
		c.abort(fmt.Errorf("scratch file in %s: %w", f.dir, err))
	}
	c.res.Spilled += uint64(len(b))
	out := unsafe.Slice((*T)(unsafe.Pointer(&b[0])), want)[:len(s)]
	copy(out, s)
	return out
}

// alloc returns n bytes of the file. They have room on its device before they are
// used, since a write to a mapping cannot fail otherwise than by a signal.
func (f *scratch) alloc(n int64) ([]byte, error) {
	if f.file == nil {
		file, err := os.CreateTemp(f.dir, ".e2fsck-*")
		if err != nil {
			return nil, err
		}
		f.file = file
		if err := os.Remove(file.Name()); err != nil {
			return nil, err
		}
	}
	page := int64(os.Getpagesize())
	n = (n + page - 1) &^ (page - 1)
	zeros := make([]byte, 1<<16)
	for done := int64(0); done < n; {
		k := min(n-done, int64(len(zeros)))
		if _, err := f.file.WriteAt(zeros[:k], f.size+done); err != nil {
			return nil, err
		}
		done += k
	}
	b, err := mapFile(f.file, f.size, int(n))
	if err != nil {
		return nil, err
	}
	f.size += n
	f.maps = append(f.maps, b)
	return b, nil
}

// close takes the file away, and the lists that lie in it.
func (f *scratch) close() {
	if f == nil {
		return
	}
	for _, b := range f.maps {
		unmapFile(b)
	}
	if f.file != nil {
		f.file.Close()
	}
	f.maps, f.file = nil, nil
}
