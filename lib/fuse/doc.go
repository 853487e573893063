// Package fuse is the FUSE wire: the messages of protocol 7, their
// negotiation, the connection that carries them, notifications to the kernel,
// and mounting. It knows no file system: a server gives it a table of handlers,
// one per opcode, and answers each [Request] in place.
//
// A request is read, served and answered by one thread, because handing it to
// another costs more than most requests do. So does waking another CPU: while requests come from one thread, one worker waits
// for them, on the CPU where they follow each other fastest.
// Where the kernel offers it, and [Rings] are given, requests come by io_uring
// instead: the kernel keeps those of each CPU apart, and each has threads of its
// own, for which one system call answers a request and waits for the next. So the
// kernel has an answer only when its handler returns ([Request.AtOnce]), and there
// are as many requests of one CPU at a time as it has threads.
//
// The fixed part of a message is viewed where it was read ([In]) and where it
// will be written from ([Out]); the data of a WRITE and the buffer for the answer
// to a READ start on a page, so that direct I/O can use them as they are.
// Integers on the wire are in host order, so the structs are plain Go structs.
//
// A Conn lives from [NewConn], which needs a mounted descriptor and opens what
// it will need later, through Serve, which returns when the file system has been
// unmounted, to its end; between NewConn and Serve the process may confine
// itself. A Request belongs to its handler until it is answered, and not
// after: every slice and pointer got from it dies with the answer.
//
//	c, err := fuse.NewConn(fd, fuse.Config{
//		Flags:   fuse.AsyncRead | fuse.WritebackCache,
//		Handlers: fuse.Handlers{
//			fuse.OpGetattr: func(r *fuse.Request) {
//				out := fuse.Out[fuse.AttrOut](r)
//				out.Attr = attrOf(r.NodeID())
//				r.Reply(0)
//			},
//		},
//	})
//	if err != nil {
//		return err
//	}
//	return c.Serve()
package fuse
