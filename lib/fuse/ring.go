//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is an io_uring that can do one thing: send commands to the one file it is
// given. It is made disabled, and stays so until the thread that is to use it
// enables it; no other can then. What the kernel refuses it from the beginning
// is every other operation, every other file, and any change of that.
type ring struct {
	fd       int
	mem      []byte // head and tail of both queues, and what was completed
	sqeMem   []byte
	sqes     []sqe // to be submitted
	cqes     []cqe // completed
	sqHead   *uint32
	sqTail   *uint32
	cqHead   *uint32
	cqTail   *uint32
	waits    uintptr // flags of a wait
	deadline ringWait
}

// sqe is struct io_uring_sqe with IORING_SETUP_SQE128, of a command to /dev/fuse.
type sqe struct {
	opcode   uint8
	flags    uint8
	_        uint16
	fd       int32 // index in the registered files
	cmdOp    uint32
	_        uint32
	addr     uint64
	n        uint32
	_        uint32
	userData uint64
	_        uint64
	cmd      uringCmdReq
	_        [56]byte
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, _, _ uint32
	features                          uint32
	_                                 [4]uint32
	sqOff                             sqOffsets
	cqOff                             cqOffsets
}

type sqOffsets struct {
	head, tail, mask, entries, flags, dropped, array, _ uint32
	_                                                   uint64
}

type cqOffsets struct {
	head, tail, mask, entries, overflow, cqes, flags, _ uint32
	_                                                   uint64
}

// restriction is struct io_uring_restriction.
type restriction struct {
	opcode uint16
	arg    uint8 // an operation, or flags
	_      [13]byte
}

// ringWait is struct io_uring_getevents_arg, and the time that it points to.
type ringWait struct {
	sigmask   uint64
	sigmaskSz uint32
	minWait   uint32
	ts        uint64
	sec, nsec int64
}

const ringWaitArgSize = 24 // without the time

var ( // sizes of io_uring
	_ [128]byte = [unsafe.Sizeof(sqe{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(cqe{})]byte{}
	_ [120]byte = [unsafe.Sizeof(ringParams{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(restriction{})]byte{}
)

// Numbers of io_uring.
const (
	ringSetupCqsize       = 1 << 3
	ringSetupDisabled     = 1 << 6
	ringSetupSqe128       = 1 << 10
	ringSetupSingleIssuer = 1 << 12
	ringSetupDeferTaskrun = 1 << 13
	ringSetupNoSqarray    = 1 << 16

	ringOffSq   = 0
	ringOffSqes = 0x10000000

	ringRegisterFiles        = 2
	ringRegisterRestrictions = 11
	ringRegisterEnable       = 12

	ringRestrictRegister = 0
	ringRestrictSqeOp    = 1
	ringRestrictAllowed  = 2 // flags of an sqe
	ringRestrictRequired = 3

	ringOpURingCmd   = 46
	ringSqeFixedFile = 1 << 0

	ringEnterGetevents = 1 << 0
	ringEnterExtArg    = 1 << 3
	ringEnterNoIowait  = 1 << 7
	ringFeatNoIowait   = 1 << 17
)

// ringSq is how many commands a ring takes at a time: one for each thread, and
// those that wait on it.
const ringSq = 8

// newRing makes a ring that completes up to cq commands.
func newRing(cq int) (g *ring, err error) {
	p := ringParams{
		cqEntries: uint32(cq),
		flags: ringSetupCqsize | ringSetupDisabled | ringSetupSqe128 | ringSetupSingleIssuer |
			ringSetupDeferTaskrun | ringSetupNoSqarray,
	}
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, ringSq, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	g = &ring{fd: int(fd), waits: ringEnterGetevents}
	if p.features&ringFeatNoIowait != 0 {
		// Else an idle mount would make its CPUs look busy with I/O.
		g.waits |= ringEnterNoIowait
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	// What may be registered is restricted too since one of that is named.
	r := []restriction{
		{opcode: ringRestrictRegister, arg: ringRegisterEnable},
		{opcode: ringRestrictSqeOp, arg: ringOpURingCmd},
		{opcode: ringRestrictAllowed, arg: ringSqeFixedFile},
		{opcode: ringRestrictRequired, arg: ringSqeFixedFile},
	}
	if err := g.register(ringRegisterRestrictions, unsafe.Pointer(&r[0]), len(r)); err != nil {
		return nil, err
	}
	size := p.cqOff.cqes + p.cqEntries*uint32(unsafe.Sizeof(cqe{}))
	if g.mem, err = mapRing(g.fd, ringOffSq, int(size)); err != nil {
		return nil, err
	}
	if g.sqeMem, err = mapRing(g.fd, ringOffSqes, int(p.sqEntries)*int(unsafe.Sizeof(sqe{}))); err != nil {
		return nil, err
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&g.mem[off])) }
	g.sqHead, g.sqTail = at(p.sqOff.head), at(p.sqOff.tail)
	g.cqHead, g.cqTail = at(p.cqOff.head), at(p.cqOff.tail)
	g.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&g.sqeMem[0])), p.sqEntries)
	g.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&g.mem[p.cqOff.cqes])), p.cqEntries)
	return g, nil
}

func mapRing(fd int, off int64, n int) ([]byte, error) {
	b, err := unix.Mmap(fd, off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map an io_uring: %w", err)
	}
	return b, nil
}

// register is io_uring_register.
func (g *ring) register(op uintptr, arg unsafe.Pointer, n int) error {
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(g.fd), op, uintptr(arg), uintptr(n), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_register", errno)
	}
	return nil
}

// attach gives the ring its file.
func (g *ring) attach(fd int) error {
	file := int32(fd)
	return g.register(ringRegisterFiles, unsafe.Pointer(&file), 1)
}

// enable makes the ring the calling thread's.
func (g *ring) enable() error { return g.register(ringRegisterEnable, nil, 0) }

// push returns the next entry to be submitted, zeroed. The ring must not be full.
func (g *ring) push() *sqe {
	tail := atomic.LoadUint32(g.sqTail)
	e := &g.sqes[tail&uint32(len(g.sqes)-1)]
	*e = sqe{opcode: ringOpURingCmd, flags: ringSqeFixedFile}
	atomic.StoreUint32(g.sqTail, tail+1)
	return e
}

// pushed returns how many entries wait to be submitted.
func (g *ring) pushed() uint32 { return atomic.LoadUint32(g.sqTail) - atomic.LoadUint32(g.sqHead) }

// full tells whether there is no room to push.
func (g *ring) full() bool { return int(g.pushed()) == len(g.sqes) }

// pop returns what was completed, if anything was.
func (g *ring) pop() (c cqe, ok bool) {
	head := atomic.LoadUint32(g.cqHead)
	if head == atomic.LoadUint32(g.cqTail) {
		return cqe{}, false
	}
	c = g.cqes[head&uint32(len(g.cqes)-1)]
	atomic.StoreUint32(g.cqHead, head+1)
	return c, true
}

// submit submits what was pushed, and does not wait.
func (g *ring) submit() syscall.Errno {
	for g.pushed() > 0 {
		_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(g.fd), uintptr(g.pushed()), 0, 0, 0, 0)
		if errno != 0 && errno != syscall.EINTR {
			return errno
		}
	}
	return 0
}

// wait submits what was pushed, and waits until something is completed, or,
// unless most is 0, so long. It may return without either.
func (g *ring) wait(most time.Duration) syscall.Errno {
	flags, arg, size := g.waits, unsafe.Pointer(nil), uintptr(0)
	if most > 0 {
		g.deadline.nsec = int64(most)
		g.deadline.ts = uint64(uintptr(unsafe.Pointer(&g.deadline.sec)))
		flags, arg, size = flags|ringEnterExtArg, unsafe.Pointer(&g.deadline), ringWaitArgSize
	}
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(g.fd), uintptr(g.pushed()), 1, flags, uintptr(arg), size)
	switch errno {
	case syscall.EINTR, syscall.ETIME:
		return 0
	}
	return errno
}

// close ends the ring.
func (g *ring) close() {
	for _, b := range [][]byte{g.mem, g.sqeMem} {
		if b != nil {
			unix.Munmap(b)
		}
	}
	g.mem, g.sqeMem, g.sqes, g.cqes = nil, nil, nil, nil
	unix.Close(g.fd)
}

// ringRefused explains why there is no io_uring, where somebody can change that.
func ringRefused(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: not in this kernel, or filtered", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: see the sysctl kernel.io_uring_disabled, or a filter of system calls", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%w: see RLIMIT_NOFILE", err)
	}
	return err
}
