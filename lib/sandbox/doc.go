// Package sandbox gives up privilege: what a server that parses hostile bytes
// does once it has its descriptors, and before it reads the first byte.
//
// [Confine] takes from the process all capabilities, the gain of new ones, the
// file system, the network and signals to others (Landlock), new executable
// memory, core dumps and debuggers, and all system calls but those that serve
// open descriptors and run Go (seccomp). What is left can read and write what is
// open, and compute. It cannot be undone, and it holds for all threads.
//
// A server that is still to be given descriptors then calls [Tighten] when it
// has them: a second filter leaves what serving takes, and no new descriptor.
// Landlock has no second stage, since the first allows nothing.
//
// [Start] starts a process in namespaces of its own, where that is possible,
// and [Probe] tells what this kernel has without changing anything.
//
// Linux only; elsewhere Confine reports that everything is missing.
//
//	o := sandbox.Options{Ioctls: []uint32{unix.BLKDISCARD}, Files: 64, Tighten: true}
//	missing, err := sandbox.Confine(o)
//	if err != nil {
//		return err
//	}
//	for _, m := range missing {
//		log.Printf("not confined: %v", m)
//	}
//	// ... parse, receive descriptors, begin to serve ...
//	err = sandbox.Tighten(sandbox.Options{Ioctls: o.Ioctls})
package sandbox

// Options says what is left to the process.
type Options struct {
	// Ioctls are the requests allowed, on any descriptor.
	Ioctls []uint32

	// Syscalls are system calls allowed beyond those of a server, by the
	// numbers of this architecture. To make new descriptors, or to receive
	// them, is beyond a server.
	Syscalls []uint32

	// Uring allows to use io_urings that there are, and before Tighten to give
	// them files and enable them, but not to make any: what they can do should
	// have been restricted before.
	Uring bool

	// Files is one more than the highest descriptor that the process may
	// still be given over a socket; with 0 it gets no new ones.
	Files uint64

	// Memory is the most writable memory of its own that the process may have,
	// in bytes; 0 is no limit. A process that needs more ends; Go's collector
	// works against that from three quarters on. It is not a limit of
	// address space, of which Go reserves what it never uses.
	Memory uint64

	// Tighten leaves what a later call of Tighten needs.
	Tighten bool

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

// Part is a part of the sandbox as [Probe] finds it.
type Part struct {
	Name   string `json:"name"`
	Have   bool   `json:"have"`
	Detail string `json:"detail"` // what it does here, or what is lacking
}
