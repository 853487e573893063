// Package iomappeer plays the kernel's side of the fuse-iomap protocol: the
// requests that a kernel with iomap would send, with its page cache, mapping
// caches, locks, validation and counters, and what it does with the answers.
// It is the independent oracle for a fuse-iomap server, so it shares no
// structure and no constant with ours: both are written from the protocol's
// description, and must meet.
//
// A Kernel is one connection. Its Device is what the server sees of the
// character device: one Recv is one request, one Send one reply or notification,
// whose errno is the kernel's verdict. The peer moves the file data itself, to
// and from the block devices that the server registers.
//
//	k := iomappeer.New(iomappeer.Config{
//		Profile: iomappeer.May26,
//		Resolve: func(fd int32) (iomappeer.BlockDev, syscall.Errno) { return dev, 0 },
//	})
//	go serve(k.Device()) // the server under test
//	if err := k.Mount(); err != nil {
//		return err
//	}
//	f, errno := k.Create(k.Root(), "a", 0o644)
//	if errno != 0 {
//		return errno
//	}
//	f.Write([]byte("hello"), 0) // page cache: BEGIN(WRITE)
//	f.Fsync(false)              // BEGIN(WRITEBACK), IOEND, SETATTR, FSYNC
//	f.Read(buf, 0)              // compared with what was written
//	f.Close()
//	k.Unmount()                 // DESTROY
//	return k.Err()              // what the assertions found
//
// Operations return what a system call would: an errno, 0 for success. They may
// be called from many goroutines; they hold the locks that the kernel would hold
// while it waits for the server, so that a server that waits for another request
// of the same inode deadlocks here as it would there, and the watchdog says so.
//
// Rules that a server can break are checked all the time, each by a name: A1 to
// A18 (see Checks), DATA for bytes read that nobody wrote, ATTR and NAME for
// attributes and names. Kernel.Evals tells how often each was evaluated, so that
// a check that never ran is not mistaken for one that passed; Kernel.Violations
// has what was found, with the messages that led there.
//
// Kernel.Count counts the requests by opcode and by operation. Fuzz drives random
// operations, reproducibly if there is one worker; Shrink finds the shortest run
// that fails. Expect tells what a crash at that moment must leave of the files,
// and what it may, for Expectation.Check. Config.Faults makes things go wrong.
//
// A server in another process gets the device over a socket: Listen returns the
// descriptor that it gives to Dial. A server that writes metadata through the page
// cache of its device is given Kernel.PageCached in place of the device.
package iomappeer
