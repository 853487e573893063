//go:build !linux

package buffer

import "syscall"

// Errnos that not every system has, by their Linux numbers and meaning.
const (
	EUCLEAN = syscall.Errno(117) // contents contradict themselves
	EBADMSG = syscall.Errno(74)  // checksum does not match
)
