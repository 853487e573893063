package populate

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A tree can have more names than there is memory for, so it is kept in pages,
// of which those that were used last are in memory and the others in a file
// without a name. The file is made when the first page has to leave: most trees
// never have one.

const (
	pageSize = 4096

	// keptPages is how many of the last pages that were asked for stay where they
	// are: whoever works on some at a time need not hold them.
	keptPages = 16
	minPages  = 4 * keptPages
	slabPages = 64 // made at a time, but few at first

	noPage = 1<<32 - 1
)

// pager keeps pages.
type pager struct {
	most   int                      // in memory
	create func() (*os.File, error) // makes the file
	file   *os.File                 // nil: all are in memory
	where  []int32                  // by page: the frame it is in, or -1
	frames []frame
	slab   []byte // of which frames get their memory
	hand   int    // of the clock that finds the frame to be used again
	tick   uint64 // pages that were asked for
}

// frame is memory for a page.
type frame struct {
	buf         []byte
	page        uint32
	tick        uint64 // when it was last asked for
	dirty, used bool
}

// add makes a page of zeros.
func (p *pager) add() (uint32, []byte, error) {
	if int64(len(p.where)) == noPage {
		return 0, nil, &TempError{"growing", syscall.EFBIG}
	}
	i, err := p.free()
	if err != nil {
		return 0, nil, err
	}
	no := uint32(len(p.where))
	p.where = append(p.where, int32(i))
	f := &p.frames[i]
	clear(f.buf)
	p.tick++
	f.page, f.tick, f.dirty, f.used = no, p.tick, true, true
	return no, f.buf, nil
}

// get returns a page, which is going to be changed if change is true. It stays
// where it is until keptPages others were asked for.
func (p *pager) get(no uint32, change bool) ([]byte, error) {
	i := p.where[no]
	if i < 0 {
		k, err := p.free()
		if err != nil {
			return nil, err
		}
		f := &p.frames[k]
		if _, err := p.file.ReadAt(f.buf, int64(no)*pageSize); err != nil {
			return nil, &TempError{"reading", err}
		}
		i = int32(k)
		p.where[no] = i
		f.page, f.dirty = no, false
	}
	f := &p.frames[i]
	p.tick++
	f.tick, f.used = p.tick, true
	f.dirty = f.dirty || change
	return f.buf, nil
}

// free returns a frame that no page is in.
func (p *pager) free() (int, error) {
	if len(p.frames) < max(p.most, minPages) {
		if len(p.slab) == 0 {
			p.slab = make([]byte, min(max(len(p.frames), 4), slabPages)*pageSize)
		}
		p.frames = append(p.frames, frame{buf: p.slab[:pageSize:pageSize], page: noPage})
		p.slab = p.slab[pageSize:]
		return len(p.frames) - 1, nil
	}
	for {
		i := p.hand
		p.hand = (p.hand + 1) % len(p.frames)
		f := &p.frames[i]
		if f.used && p.tick-f.tick >= keptPages {
			f.used = false
			continue
		}
		if f.used {
			continue
		}
		if f.dirty {
			if err := p.write(f); err != nil {
				return 0, err
			}
		}
		if f.page != noPage {
			p.where[f.page] = -1
			f.page = noPage
		}
		return i, nil
	}
}

func (p *pager) write(f *frame) error {
	if p.file == nil {
		file, err := p.create()
		if err != nil {
			return &TempError{"making", err}
		}
		p.file = file
	}
	if _, err := p.file.WriteAt(f.buf, int64(f.page)*pageSize); err != nil {
		return &TempError{"writing", err}
	}
	f.dirty = false
	return nil
}

// A TempError is a failure of the file in Options.TempDir that a tree is kept in,
// which says nothing of what is in the tree or of the device. It unwraps to the
// reason, or to EIO where that is that there is no room: it is not the device
// that has none.
type TempError struct {
	Op  string // what was tried
	Err error
}

// Error says what failed, and why.
func (e *TempError) Error() string {
	return fmt.Sprintf("%s a temporary file for names and attributes: %v", e.Op, e.Err)
}

// Unwrap returns the reason.
func (e *TempError) Unwrap() error {
	if errors.Is(e.Err, syscall.ENOSPC) || errors.Is(e.Err, syscall.EDQUOT) {
		return syscall.EIO
	}
	return e.Err
}
