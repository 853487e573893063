package sandbox

import (
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confine confines all threads of the process, present and future. It returns
// the parts that the kernel lacks, which is for the caller to accept; the rest
// is in force then. It fails if a part that every kernel has does not work, as
// in a program linked with cgo.
//
// Opening files, starting programs, and whatever else needs a new descriptor
// must be done before; time zones and the poller of Go are loaded by Confine.
func Confine(o Options) ([]*Missing, error) {
	prepareRuntime()
	if err := dropCapabilities(); err != nil {
		return nil, err
	}
	missing := landlock() // needs a descriptor
	if err := limits(o); err != nil {
		return nil, err
	}
	if err := filterSyscalls(o); err != nil {
		missing = append(missing, &Missing{"seccomp", err})
	}
	return missing, nil
}

// prepareRuntime makes Go open what it opens on first use.
func prepareRuntime() {
	_, _ = time.Now().Local().Zone()      // reads /etc/localtime
	time.AfterFunc(time.Hour, nop).Stop() // makes an epoll descriptor
}

func nop() {}

// limits sets resource limits, soft and hard.
func limits(o Options) error {
	for _, l := range []struct {
		name     string
		resource int
		limit    uint64
	}{
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		// Not 0, since that is as many as poll looks at.
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, max(o.Files, 1)},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.limit, Max: l.limit}); err != nil {
			return fmt.Errorf("sandbox: %s: %w", l.name, err)
		}
	}
	// No look into memory by other processes of the user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("sandbox: PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// allThreads makes a system call on each thread. Capabilities, no_new_privs and
// Landlock are attributes of threads.
func allThreads(what string, trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3); errno != 0 {
		return fmt.Errorf("sandbox: %s: %w", what, errno)
	}
	return nil
}

// dropCapabilities empties every set of capabilities, and keeps them empty.
func dropCapabilities() error {
	if err := allThreads("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	// The bounding set needs CAP_SETPCAP; without it there is nothing to bound.
	for c := uintptr(0); c < 64; c++ {
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			break // past the last
		} else if has == 0 {
			continue
		}
		err := allThreads("bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0)
		if errors.Is(err, unix.EPERM) {
			break
		}
		if err != nil {
			return err
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	// Ambient capabilities go with the permitted ones.
	return allThreads("capabilities", unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&none)), 0)
}
