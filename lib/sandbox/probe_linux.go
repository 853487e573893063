package sandbox

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seccompGetActionAvail is SECCOMP_GET_ACTION_AVAIL.
const seccompGetActionAvail = 2

// Probe tells which parts of the sandbox this kernel has for this process. It
// changes nothing.
func Probe() []Part {
	return []Part{
		{"capabilities", true, "all sets are emptied"},
		probeNoNewPrivs(), probeLandlock(), probeSeccomp(), probeMDWE(), probeNamespaces(),
	}
}

func probeNoNewPrivs() Part {
	if _, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil {
		return Part{"no_new_privs", false, err.Error()}
	}
	return Part{"no_new_privs", true, "no program gives privilege"}
}

func probeLandlock() Part {
	abi, errno := llCreate(nil, 0, llCreateVersion)
	switch {
	case errno == unix.EOPNOTSUPP:
		return Part{"Landlock", false, "not enabled: add landlock to the kernel parameter lsm="}
	case errno == unix.ENOSYS:
		return Part{"Landlock", false, "not in this kernel; Linux 5.13 has it"}
	case errno != 0:
		return Part{"Landlock", false, errno.Error()}
	}
	detail := fmt.Sprintf("ABI %d", abi)
	if lacks := llLacks(int(abi), true); lacks != "" {
		detail += ", without " + lacks
	}
	if errata, errno := llCreate(nil, 0, llCreateErrata); abi >= 6 && (errno != 0 || errata&llErratumSignal == 0) {
		detail += ", signals left out: their erratum is not fixed"
	}
	return Part{"Landlock", true, detail}
}

func probeSeccomp() Part {
	if auditArch == 0 {
		return Part{"seccomp", false, "no filter is known for this architecture"}
	}
	action := uint32(retKill)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, seccompGetActionAvail, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return Part{"seccomp", false, errno.Error() + "; Linux 4.14 with CONFIG_SECCOMP_FILTER has it"}
	}
	return Part{"seccomp", true, fmt.Sprintf("%d system calls allowed at the start, %d while serving",
		calls(startRules(Options{Tighten: true})), calls(steadyRules(Options{})))}
}

// calls counts the system calls that rules name.
func calls(rules []rule) int {
	seen := map[uint32]bool{}
	for _, r := range rules {
		seen[r.nr] = true
	}
	return len(seen)
}

func probeMDWE() Part {
	if _, err := unix.PrctlRetInt(unix.PR_GET_MDWE, 0, 0, 0, 0); err != nil {
		return Part{"MDWE", false, "not in this kernel; Linux 6.3 has it"}
	}
	return Part{"MDWE", true, "no memory becomes executable"}
}

func probeNamespaces() Part {
	for _, name := range []string{"net", "ipc", "uts", "cgroup"} {
		if _, err := os.Lstat("/proc/self/ns/" + name); err != nil {
			return Part{"namespaces", false, "none of " + name + " in this kernel, or no /proc"}
		}
	}
	return Part{"namespaces", true, "net, ipc, uts, cgroup, where the user may make them"}
}
