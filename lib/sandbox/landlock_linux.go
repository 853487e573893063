package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock's rights and scopes by the version of its ABI that brought them.
const (
	llCreateVersion = 1 << 0 // LANDLOCK_CREATE_RULESET_VERSION
	llCreateErrata  = 1 << 1 // LANDLOCK_CREATE_RULESET_ERRATA

	llFsV1        = 1<<13 - 1 // execute ... make_sym
	llFsRefer     = 1 << 13   // 2
	llFsTruncate  = 1 << 14   // 3
	llNetTCP      = 1<<2 - 1  // 4: bind, connect
	llFsIoctlDev  = 1 << 15   // 5, for devices opened from then on
	llScopeSocket = 1 << 0    // 6: abstract UNIX sockets
	llScopeSignal = 1 << 1    // 6

	// llErratumSignal is fixed where threads may signal each other though
	// each has its own domain. Go needs that.
	llErratumSignal = 1 << 1
)

// llRulesetAttr is struct landlock_ruleset_attr.
type llRulesetAttr struct {
	fs, net, scoped uint64
}

// landlock forbids all files, TCP, and with it abstract sockets and signals to
// others. No rule allows anything.
func landlock() []*Missing {
	abi, errno := llCreate(nil, 0, llCreateVersion)
	if errno != 0 {
		return []*Missing{{"Landlock", errno}}
	}
	attr := llRulesetAttr{fs: llFsV1}
	size := unsafe.Sizeof(attr.fs)
	var missing []*Missing
	lack := func(v int, what string) bool {
		if abi < uintptr(v) {
			missing = append(missing, &Missing{"Landlock for " + what, fmt.Errorf("needs ABI %d, the kernel has %d: %w", v, abi, unix.EOPNOTSUPP)})
			return true
		}
		return false
	}
	if abi >= 2 {
		attr.fs |= llFsRefer
	}
	if !lack(3, "truncation") {
		attr.fs |= llFsTruncate
	}
	if !lack(4, "TCP") {
		attr.net = llNetTCP
		size += unsafe.Sizeof(attr.net)
	}
	if !lack(5, "device ioctls") {
		attr.fs |= llFsIoctlDev
	}
	if !lack(6, "abstract sockets and signals") {
		attr.scoped = llScopeSocket
		size += unsafe.Sizeof(attr.scoped)
		if errata, errno := llCreate(nil, 0, llCreateErrata); errno == 0 && errata&llErratumSignal != 0 {
			attr.scoped |= llScopeSignal
		}
	}
	fd, errno := llCreate(&attr, size, 0)
	if errno != 0 {
		return []*Missing{{"Landlock", errno}}
	}
	defer unix.Close(int(fd))
	if err := allThreads("Landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); err != nil {
		return []*Missing{{"Landlock", err}}
	}
	return missing
}

func llCreate(attr *llRulesetAttr, size, flags uintptr) (uintptr, unix.Errno) {
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), size, flags)
	return fd, errno
}
