//go:build linux && sandboxprobe

package fuse

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RingEscapes tries what should not be possible by the ring that r came by, and
// returns what came of it; nil if it came by /dev/fuse. It is for tests of the
// sandbox, and for r's handler.
func (r *Request) RingEscapes() map[string]error {
	ch, ok := r.ch.(*ringChannel)
	if !ok {
		return nil
	}
	const mark = 1 << 40 // no place has this number
	path := []byte("/etc/passwd\x00")
	command := func(op, flags uint8, fd int32) error {
		e := ch.g.push()
		e.opcode, e.flags, e.fd, e.userData = op, flags, fd, mark
		e.addr = uint64(uintptr(unsafe.Pointer(&path[0])))
		for {
			if errno := ch.g.wait(0); errno != 0 {
				return errno
			}
			switch c, ok := ch.g.pop(); {
			case ok && c.userData == mark && c.res < 0:
				return syscall.Errno(-c.res)
			case ok && c.userData == mark:
				return nil
			}
		}
	}
	file := int32(0)
	return map[string]error{
		"openat":                    command(18, 0, unix.AT_FDCWD),
		"socket":                    command(45, 0, unix.AF_INET),
		"read":                      command(22, 0, 0),
		"command to another file":   command(ringOpURingCmd, 0, 0),
		"change of files":           ch.g.register(ringRegisterFiles, unsafe.Pointer(&file), 1),
		"new files":                 ch.g.register(6, unsafe.Pointer(&file), 1),
		"ring of another thread":    ringOfAnother(ch),
		"command that is not known": notDenied(command(ringOpURingCmd, ringSqeFixedFile, 0)),
	}
}

// ringOfAnother submits to a ring that is not the thread's.
func ringOfAnother(ch *ringChannel) error {
	for _, o := range ch.q.channels {
		if o != ch {
			_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(o.g.fd), 1, 0, 0, 0, 0)
			if errno == unix.EEXIST { // it is the other's
				return unix.EPERM
			}
			return errno
		}
	}
	return unix.EPERM
}

// notDenied turns the answer to a command of /dev/fuse that it does not know into
// that of a sandbox.
func notDenied(err error) error {
	if err == unix.EINVAL {
		return unix.EPERM
	}
	return err
}
