package buffer

import "syscall"

// Errnos that not every system has, by their Linux meaning.
const (
	EUCLEAN = syscall.EUCLEAN // contents contradict themselves
	EBADMSG = syscall.EBADMSG // checksum does not match
)
