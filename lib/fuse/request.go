//go:build linux

package fuse

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// The input buffer of a request is a run of pages. A message is read to just
// before the end of the first, so that what follows an InHeader and a WriteIn,
// or a ReadIn, starts the second: the data of a WRITE, or room for what a READ
// answers. Where the kernel puts the rest of a message by itself, as over
// io_uring, that is always at the second page.
const (
	pageSize = 4096
	inOffset = pageSize - inHeaderSize - writeInSize

	// outWords is room for an OutHeader and the largest fixed answer.
	outWords = (16 + 496) / 8
)

// Request is one request of the kernel, and the room for its answer. It
// belongs to the handler that got it until one of the Reply methods is called,
// which the handler may do later, from another goroutine. It is not safe for
// concurrent use.
type Request struct {
	hdr *InHeader  // at buf[start:]
	ch  replier    // where the answer goes
	ent *ringEntry // over io_uring: its place
	c   *Conn

	buf   []byte // page-aligned; see inOffset
	start int    // of the message in buf
	end   int    // of the message's body in buf, without extensions
	cur   int    // what In, Name, Text have consumed of buf
	ext   []byte // extensions

	out     [outWords]uint64 // OutHeader and fixed answer
	outLen  int              // of the fixed answer, bytes
	payload []byte           // from OutBuf
	extra   []byte           // backs payload where the message is in the way

	iov     [2]syscall.Iovec
	claimed bool // Reply has been called
	sent    bool // ... and an answer was given to ch
	atOnce  bool // ... and is not to be kept
	state   atomic.Uint32
}

// What state may be. The worker and the one who answers race for the change
// from serving; who comes second gives the request back.
const (
	serving  = iota
	answered // before the handler returned
	deferred // the handler returned first
)

// Conn returns the connection.
func (r *Request) Conn() *Conn { return r.c }

// Op returns the operation.
func (r *Request) Op() Op { return r.hdr.Opcode }

// NodeID returns the node that the request is about; for operations on names,
// the directory.
func (r *Request) NodeID() uint64 { return r.hdr.NodeID }

// Unique returns the number by which INTERRUPT names the request.
func (r *Request) Unique() uint64 { return r.hdr.Unique }

// UID returns the file system user id of the caller.
func (r *Request) UID() uint32 { return r.hdr.UID }

// GID returns the file system group id of the caller.
func (r *Request) GID() uint32 { return r.hdr.GID }

// PID returns the thread id of the caller, 0 if that is the kernel, or outside
// the pid namespace of the mount.
func (r *Request) PID() uint32 { return r.hdr.PID }

// In views the fixed part of the message. It reports false if the message is
// too short for a T. What Name, Text and Payload return starts behind it.
func In[T any](r *Request) (*T, bool) {
	n := int(unsafe.Sizeof(*new(T)))
	start := r.start + inHeaderSize
	if r.end-start < n {
		return nil, false
	}
	r.cur = start + n
	return (*T)(unsafe.Pointer(&r.buf[start])), true
}

// Setxattr returns the fixed part of SETXATTR, whose size depends on SetxattrExt.
func (r *Request) Setxattr() (SetxattrIn, bool) {
	if r.c.Negotiated().Flags&SetxattrExt != 0 {
		in, ok := In[SetxattrIn](r)
		if !ok {
			return SetxattrIn{}, false
		}
		return *in, true
	}
	in, ok := In[[2]uint32](r)
	if !ok {
		return SetxattrIn{}, false
	}
	return SetxattrIn{Size: in[0], Flags: in[1]}, true
}

// Text returns the next NUL-terminated string of the message without its NUL,
// in place, and goes past it. It reports false if there is none.
func (r *Request) Text() ([]byte, bool) {
	if r.cur == 0 {
		r.cur = r.start + inHeaderSize
	}
	rest := r.buf[r.cur:r.end]
	i := bytes.IndexByte(rest, 0)
	if i < 0 {
		return nil, false
	}
	r.cur += i + 1
	return rest[:i:i], true
}

// Name is Text for the name of a directory entry: it reports false also for an
// empty one and one with a slash.
func (r *Request) Name() ([]byte, bool) {
	b, ok := r.Text()
	if !ok || len(b) == 0 || bytes.IndexByte(b, '/') >= 0 {
		return nil, false
	}
	return b, true
}

// Names is Name, twice.
func (r *Request) Names() (a, b []byte, ok bool) {
	if a, ok = r.Name(); !ok {
		return nil, nil, false
	}
	b, ok = r.Name()
	return a, b, ok
}

// Payload returns what In, Name and Text have left: the data of WRITE, which
// then starts on a page, the value of SETXATTR, the argument of IOCTL. The
// handler compares its length with the one that the message states.
func (r *Request) Payload() []byte {
	if r.cur == 0 {
		r.cur = r.start + inHeaderSize
	}
	return r.buf[r.cur:r.end:r.end]
}

// SuppGroup returns the supplementary group of the caller that owns the
// directory, which the kernel adds to requests that create files if
// CreateSuppGroup was agreed on, and false if it sent none.
func (r *Request) SuppGroup() (gid uint32, ok bool) {
	// Extensions follow strings of any length without padding, so no pointer
	// to them is aligned.
	for b := r.ext; len(b) >= 8; {
		size, typ := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
		if size < 8 || int64(size) > int64(len(b)) {
			return 0, false
		}
		if typ == ExtGroups && size >= 16 { // count, then groups
			return binary.NativeEndian.Uint32(b[12:]), binary.NativeEndian.Uint32(b[8:]) > 0
		}
		b = b[min((int(size)+7)&^7, len(b)):]
	}
	return 0, false
}

// Out returns the fixed part of the answer, zeroed. The answer will contain it,
// unless it is an error.
func Out[T any](r *Request) *T {
	n := int(unsafe.Sizeof(*new(T)))
	if n > len(r.out)*8-outHeaderSize {
		panic("fuse: answer too large for Out")
	}
	r.outLen = n
	p := (*T)(unsafe.Pointer(&r.out[outHeaderSize/8]))
	*p = *new(T)
	return p
}

// OutBuf returns n bytes for what follows the fixed part of the answer, not
// zeroed, starting on a page. With READ, READDIR and READDIRPLUS it costs
// nothing; where the message itself is in the way, it allocates once. It
// returns nil if n exceeds the largest answer, as agreed on in INIT.
func (r *Request) OutBuf(n int) []byte {
	if n < 0 || n > len(r.buf)-pageSize {
		return nil
	}
	switch {
	case r.end <= pageSize && len(r.ext) == 0:
		r.payload = r.buf[pageSize : pageSize+n : pageSize+n]
	case cap(r.extra) >= n:
		r.payload = r.extra[:n]
	default:
		r.extra = alignedBuf(n)
		r.payload = r.extra
	}
	return r.payload
}

// Reply answers with what Out returned, if it was called, and the first n bytes
// of what OutBuf returned. It returns ENOENT if the caller has been killed
// meanwhile and nobody took the answer: then references to nodes that it would
// have handed over do not exist.
func (r *Request) Reply(n int) error { return r.ReplyBytes(r.payload[:n]) }

// ReplyBytes is Reply with bytes from elsewhere, which are not copied.
func (r *Request) ReplyBytes(p []byte) error {
	return r.send(0, r.outLen, p)
}

// ReplyErr answers with an error; 0 is success without content.
func (r *Request) ReplyErr(errno syscall.Errno) error {
	return r.send(-int32(errno), 0, nil)
}

// AtOnce has the answer that is given next reach the kernel before the Reply
// method returns. Without it that may be when the handler returns, which matters
// to one that goes on with what the kernel holds back until it has the answer. It
// is for the handler itself, not for who answers later.
func (r *Request) AtOnce() { r.atOnce = true }

// Blocking announces that the handler is about to wait for long, for a disk or
// a lock, so that another worker takes over reading requests now. Without it
// that happens some milliseconds later.
func (r *Request) Blocking() {
	if r.c.idle.Load() == 0 {
		r.c.unpark()
	}
}

// ReplyNone ends a request that the kernel wants no answer to: FORGET,
// BATCH_FORGET, NOTIFY_REPLY, and a handled INTERRUPT.
func (r *Request) ReplyNone() {
	r.claim()
	r.done()
}

func (r *Request) claim() {
	if r.claimed {
		panic("fuse: " + r.Op().String() + " answered twice")
	}
	r.claimed = true
}

func (r *Request) send(errno int32, fixed int, payload []byte) error {
	r.claim()
	if r.Op().noReply() {
		r.done()
		return nil
	}
	h := (*OutHeader)(unsafe.Pointer(&r.out))
	h.Len = uint32(outHeaderSize + fixed + len(payload))
	h.Error = errno
	h.Unique = r.hdr.Unique
	r.sent = true
	err := r.ch.send(r, outHeaderSize+fixed, payload)
	if err != 0 {
		r.c.replyFailed(r, err)
	}
	r.done()
	if err != 0 {
		return err
	}
	return nil
}

// done ends the request, which then belongs to its worker, or to no one.
func (r *Request) done() {
	if !r.state.CompareAndSwap(serving, answered) {
		r.ch.late(r)
		r.c.deferred.Add(-1)
	}
}

// parse makes the n bytes received at start a request, or reports that they are
// none.
func (r *Request) parse(n int) bool {
	r.cur, r.outLen, r.payload, r.ext, r.claimed, r.sent, r.atOnce = 0, 0, nil, nil, false, false, false
	r.state.Store(serving)
	r.hdr = (*InHeader)(unsafe.Pointer(&r.buf[r.start]))
	if n < inHeaderSize || int64(r.hdr.Len) != int64(n) {
		return false
	}
	r.end = r.start + n
	if e := int(r.hdr.TotalExtlen) * 8; e > 0 {
		if e > n-inHeaderSize {
			return false
		}
		r.end -= e
		r.ext = r.buf[r.end : r.end+e : r.end+e]
	}
	return true
}

// forgets tells whether the message, of n bytes, is no request of a client.
func (r *Request) forgets(n int) bool {
	if n < inHeaderSize {
		return true
	}
	r.hdr = (*InHeader)(unsafe.Pointer(&r.buf[r.start]))
	return r.Op() == OpForget || r.Op() == OpBatchForget || r.Op() == OpInterrupt
}

// bulk tells whether the message, of n bytes, carries or asks for so much data
// that to copy it takes longer than to wake somebody.
func (r *Request) bulk(n int) bool {
	const most = 32 << 10
	return n >= most || r.Op() == OpRead && n >= inHeaderSize+readInSize &&
		(*ReadIn)(unsafe.Pointer(&r.buf[r.start+inHeaderSize])).Size >= most
}

// alignedBuf returns n bytes of zeroed memory that start on a page.
func alignedBuf(n int) []byte {
	b := make([]byte, n+pageSize)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (pageSize - 1))
	return b[off : off+n : off+n]
}
