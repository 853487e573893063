// Package sandbox gives up privilege: what a server that parses hostile bytes
// does once it has its descriptors, and before it reads the first byte.
//
// [Confine] takes from the process all capabilities, the gain of new ones, the
// file system and the network (Landlock), and all system calls but those that
// serve open descriptors and run Go (seccomp). What is left can read and write
// what is open, and compute. It cannot be undone, and it holds for all threads.
//
// Linux only; elsewhere Confine reports that everything is missing.
//
//	missing, err := sandbox.Confine(sandbox.Options{Ioctls: []uint32{unix.BLKDISCARD}})
//	if err != nil {
//		return err
//	}
//	for _, m := range missing {
//		log.Printf("not confined: %v", m)
//	}
package sandbox

// Options says what is left to the process.
type Options struct {
	// Ioctls are the requests allowed, on any descriptor.
	Ioctls []uint32

	// Syscalls are system calls allowed beyond those of a server, by the
	// numbers of this architecture.
	Syscalls []uint32

	// Files is one more than the highest descriptor that the process may
	// still be given over a socket; with 0 it gets no new ones.
	Files uint64

	// Kill makes a forbidden system call end the process, with SIGSYS. Else it
	// fails with EPERM.
	Kill bool
}

// Missing is a part of the sandbox that this kernel does not have.
type Missing struct {
	Part string // such as "Landlock"
	Err  error
}

func (m *Missing) Error() string { return m.Part + ": " + m.Err.Error() }

// Unwrap returns the kernel's answer.
func (m *Missing) Unwrap() error { return m.Err }
