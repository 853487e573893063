//go:build !linux

package ondisk

import "syscall"

// Errnos that not every system has, by their Linux numbers and meaning.
const (
	EUCLEAN = syscall.Errno(117) // structure needs cleaning
	EBADMSG = syscall.Errno(74)  // checksum does not match
	ENODATA = syscall.Errno(61)  // no such attribute
)
