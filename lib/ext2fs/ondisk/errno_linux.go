package ondisk

import "syscall"

// Errnos that not every system has, by their Linux meaning.
const (
	EUCLEAN = syscall.EUCLEAN // structure needs cleaning
	EBADMSG = syscall.EBADMSG // checksum does not match
	ENODATA = syscall.ENODATA // no such attribute
)
