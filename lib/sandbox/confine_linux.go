package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
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
	if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
		missing = append(missing, &Missing{"MDWE", fmt.Errorf("needs Linux 6.3: %w", err)})
	}
	if err := filterSyscalls(o, startRules(o)); err != nil {
		missing = append(missing, &Missing{"seccomp", err})
		unfiltered = true
	}
	return missing, nil
}

// unfiltered says that Confine has reported that there is no filter.
var unfiltered bool

// Tighten takes from a confined process, whose Options.Tighten was set, what
// only its start needed: all new descriptors, and every system call and ioctl
// that o does not name and that serving does not need. It holds for all
// threads, whatever they do at the moment.
func Tighten(o Options) error {
	o.Files, o.Tighten = 0, false
	if err := limitFiles(o); err != nil {
		return err
	}
	if unfiltered {
		return nil
	}
	if err := filterSyscalls(o, steadyRules(o)); err != nil {
		return fmt.Errorf("sandbox: seccomp, second filter: %w", err)
	}
	return nil
}

// prepareRuntime makes Go open what it opens on first use.
func prepareRuntime() {
	_, _ = time.Now().Local().Zone()      // reads /etc/localtime
	time.AfterFunc(time.Hour, nop).Stop() // makes an epoll descriptor
}

func nop() {}

// limits sets resource limits, soft and hard, and makes the process no
// business of others.
//
// There is none for processes: the kernel counts all that the user runs, and
// the filter allows no process anyway.
func limits(o Options) error {
	if err := setLimit("RLIMIT_CORE", unix.RLIMIT_CORE, 0); err != nil {
		return err
	}
	// Images are large: a soft limit of the user's shell is not meant for them.
	var size unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &size); err == nil && size.Cur != size.Max {
		if err := setLimit("RLIMIT_FSIZE", unix.RLIMIT_FSIZE, size.Max); err != nil {
			return err
		}
	}
	if o.Memory > 0 {
		var data unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_DATA, &data); err == nil {
			o.Memory = min(o.Memory, data.Max)
		}
		if err := setLimit("RLIMIT_DATA", unix.RLIMIT_DATA, o.Memory); err != nil {
			return err
		}
		if os.Getenv("GOMEMLIMIT") == "" {
			debug.SetMemoryLimit(int64(min(o.Memory, 1<<62) / 4 * 3))
		}
	}
	if err := limitFiles(o); err != nil {
		return err
	}
	// No look into memory by other processes of the user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("sandbox: PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// limitFiles allows no descriptor from o.Files on. The limit is not 0, since
// that is as many as poll looks at.
func limitFiles(o Options) error {
	return setLimit("RLIMIT_NOFILE", unix.RLIMIT_NOFILE, max(o.Files, 1))
}

func setLimit(name string, resource int, n uint64) error {
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		return fmt.Errorf("sandbox: %s: %w", name, err)
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

// secureBits end what root and a change of user mean for capabilities, for good:
// SECBIT_NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, set and locked, and
// KEEP_CAPS, locked and not set.
const secureBits = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7

// dropCapabilities empties every set of capabilities, and keeps them empty.
func dropCapabilities() error {
	if err := allThreads("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	// Both need CAP_SETPCAP; without it there is nothing to bound.
	if err := allThreads("secure bits", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secureBits, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
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
	// Kernels before 4.3 have no ambient set.
	err := allThreads("ambient set", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return allThreads("capabilities", unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&none)), 0)
}
