//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iocb is the kernel's struct iocb, of a little-endian machine.
type iocb struct {
	data   uint64
	_      [8]byte // key, flags of one access
	opcode uint16
	_      int16 // priority
	fd     uint32
	buf    uintptr // memory that the collector does not move or free
	nbytes uint64
	offset int64
	_      [16]byte // reserved, flags, eventfd
}

// ioEvent is the kernel's struct io_event.
type ioEvent struct {
	data, obj uint64
	res, res2 int64
}

var _ [64]byte = [unsafe.Sizeof(iocb{})]byte{}

const (
	iocbPread  = 0
	iocbPwrite = 1
)

// accessQueue is access by one thread that keeps as many requests under way as
// the queue is deep, through the kernel's asynchronous I/O.
func accessQueue(b *bed, f *os.File, offs []int64, write bool) (done int, err error) {
	buf, err := pages(depth * pageSize)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(buf)
	var ctx uintptr
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, depth, uintptr(unsafe.Pointer(&ctx)), 0); e != 0 {
		return 0, fmt.Errorf("io_setup: %w", e)
	}
	// Waits for what is under way, so that buf can go.
	defer unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0)
	var (
		cbs    [depth]iocb
		at     [depth]int64 // the offset each slot is busy with
		events [depth]ioEvent
		free   = make([]int, 0, depth)
		batch  = make([]*iocb, 0, depth)
		next   int
		end    = time.Now().Add(b.sc.limit)
		pin    runtime.Pinner
	)
	defer pin.Unpin()
	pin.Pin(&cbs)
	pin.Pin(&events)
	for i := range depth {
		free = append(free, i)
	}
	for next < len(offs) || len(free) < depth {
		if time.Now().After(end) || b.ctx.Err() != nil {
			offs = offs[:next]
		}
		batch = batch[:0]
		for len(free) > 0 && next < len(offs) {
			slot := free[len(free)-1]
			free = free[:len(free)-1]
			page := buf[slot*pageSize : (slot+1)*pageSize]
			at[slot] = offs[next]
			op := uint16(iocbPread)
			if write {
				op = iocbPwrite
				stamp(page, at[slot])
			}
			cbs[slot] = iocb{data: uint64(slot), opcode: op, fd: uint32(f.Fd()),
				buf: uintptr(unsafe.Pointer(&page[0])), nbytes: pageSize, offset: at[slot]}
			batch = append(batch, &cbs[slot])
			next++
		}
		for sent := 0; sent < len(batch); {
			n, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, uintptr(len(batch)-sent), uintptr(unsafe.Pointer(&batch[sent])))
			if e != 0 && e != unix.EINTR && e != unix.EAGAIN {
				return done, fmt.Errorf("io_submit: %w", e)
			}
			if e == 0 {
				sent += int(n)
			}
		}
		if len(free) == depth {
			break
		}
		n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, 1, depth, uintptr(unsafe.Pointer(&events[0])), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return done, fmt.Errorf("io_getevents: %w", e)
		}
		for _, ev := range events[:n] {
			slot := int(ev.data)
			if ev.res < 0 {
				return done, unix.Errno(-ev.res)
			}
			if ev.res != pageSize {
				return done, fmt.Errorf("%d bytes at offset %d", ev.res, at[slot])
			}
			if !write {
				if err := verify(buf[slot*pageSize:(slot+1)*pageSize], at[slot]); err != nil {
					return done, err
				}
			}
			free = append(free, slot)
			done++
		}
	}
	return done, b.ctx.Err()
}
