//go:build linux && sandboxprobe

package main

import "golang.org/x/sys/unix"

// int80Getpid calls getpid as a 32-bit program does.
func int80Getpid() int32

// archAttempts are system calls that other architectures do not have.
var archAttempts = []attempt{
	{"open", call(unix.SYS_OPEN, str("/etc/passwd"), 0, 0)},
	{"x32 getpid", call(unix.SYS_GETPID | 1<<30)},
	{"x32 open", call(unix.SYS_OPEN|1<<30, str("/etc/passwd"), 0, 0)},
	{"arch_prctl", call(unix.SYS_ARCH_PRCTL, 0x1003, uintptr(scratchPtr))}, // ARCH_GET_FS
	{"iopl", call(unix.SYS_IOPL, 0)},
	{"ioperm", call(unix.SYS_IOPERM, 0, 0, 0)},
	{"modify_ldt", call(unix.SYS_MODIFY_LDT, 0, 0, 0)},
	{"dup2", call(unix.SYS_DUP2, 0, 0)},
	{"inotify_init", call(unix.SYS_INOTIFY_INIT)},
}
