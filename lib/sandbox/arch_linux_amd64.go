package sandbox

import "golang.org/x/sys/unix"

// auditArch is what seccomp calls the architecture. The numbers of the x32 ABI
// are no system calls of the table, so they are denied.
const auditArch = unix.AUDIT_ARCH_X86_64

// archSyscalls are those that newer architectures do not have.
var archSyscalls = []uint32{unix.SYS_POLL}
