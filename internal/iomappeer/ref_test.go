package iomappeer

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// memDev is a device whose free space is never zeros, so that what nobody wrote
// is seen when it is shown.
type memDev struct {
	mu    sync.RWMutex
	b     []byte
	syncs atomic.Int64
}

func newMemDev(size int64) *memDev {
	return &memDev{b: bytes.Repeat([]byte{0xee}, int(size))}
}

func (d *memDev) Size() int64 { return int64(len(d.b)) }

func (d *memDev) Sync() error {
	d.syncs.Add(1)
	return nil
}

func (d *memDev) ReadAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if off < 0 || off+int64(len(p)) > int64(len(d.b)) {
		return 0, io.EOF
	}
	return copy(p, d.b[off:]), nil
}

func (d *memDev) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off+int64(len(p)) > int64(len(d.b)) {
		return 0, syscall.EIO
	}
	return copy(d.b[off:], p), nil
}

type rext struct {
	blk       int64
	unwritten bool
}

type rinode struct {
	ino     uint64
	mode    uint32
	nlink   uint32
	uid     uint32
	gid     uint32
	rdev    uint32
	size    int64
	times   [3]int64 // atime, mtime, ctime
	ext     map[int64]rext
	names   map[string]uint64
	order   []string
	parent  uint64
	target  string
	xattrs  map[string][]byte
	inline  []byte // nil: blocks
	flags   uint32
	lookups uint64
	opens   int
	mu      sync.Mutex // of the deadlock that a broken variant has
}

// refConfig is what a reference server does, rightly or not.
type refConfig struct {
	prof    Profile
	bs      int64
	blocks  int64
	cache   bool // UPSERT and RETRY_CACHE
	inline  int64
	root    uint64
	noOpen  bool
	enosys  map[uint32]bool // opcodes that it does not have
	readers int
	bug     string
	socket  bool        // the device is a socket
	meta    *PageCached // where it writes metadata, through the page cache
}

// refServer is a file system in memory, written from the protocol's description,
// that keeps only file data on its device.
type refServer struct {
	refConfig
	t   testing.TB
	dev *memDev
	d   Device

	mu       sync.Mutex
	inodes   map[uint64]*rinode
	nextIno  uint64
	used     []bool
	allocs   int
	hint     int64
	devID    uint32
	iomap    bool
	closed   atomic.Bool
	meta1    int64 // a block of metadata that comes and goes
	fhs      uint64
	open     int        // handles that are not released
	released *sync.Cond // that became fewer
	wg       sync.WaitGroup
	stuck    chan struct{}
	nofs     atomic.Int64
}

func newRef(t testing.TB, c refConfig) *refServer {
	if c.bs == 0 {
		c.bs = 4096
	}
	if c.blocks == 0 {
		c.blocks = 4096
	}
	if c.root == 0 {
		c.root = 1
	}
	if c.readers == 0 {
		c.readers = 4
	}
	s := &refServer{refConfig: c, t: t, dev: newMemDev(c.bs * c.blocks), inodes: map[uint64]*rinode{}, nextIno: 12,
		used: make([]bool, c.blocks), stuck: make(chan struct{}), meta1: -1}
	s.inodes[c.root] = &rinode{ino: c.root, mode: syscall.S_IFDIR | 0o755, nlink: 2, names: map[string]uint64{}, parent: c.root,
		xattrs: map[string][]byte{}}
	s.used[0] = true // metadata
	s.released = sync.NewCond(&s.mu)
	return s
}

func (s *refServer) freeBlocks() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(0)
	for _, u := range s.used {
		if !u {
			n++
		}
	}
	return n
}

// serve answers requests until the file system is unmounted.
func (s *refServer) serve(d Device) {
	s.d = d
	for range s.readers {
		s.wg.Go(func() {
			buf := make([]byte, 2<<20)
			for {
				n, err := d.Recv(buf)
				if err != nil {
					return
				}
				s.handle(slices.Clone(buf[:n]))
			}
		})
	}
}

func (s *refServer) reply(unique uint64, errno syscall.Errno, parts ...any) {
	body := enc(parts...)
	if errno != 0 {
		body = nil
	}
	h := enc(outHeader{Len: uint32(outHeaderSize + len(body)), Error: -int32(errno), Unique: unique})
	s.d.Send(h, body)
}

func (s *refServer) note(code int32, payload any) syscall.Errno {
	body := enc(payload)
	return s.d.Send(enc(outHeader{Len: uint32(outHeaderSize + len(body)), Error: code}), body)
}

func (s *refServer) attr(n *rinode) Attr {
	a := Attr{Ino: n.ino, Size: uint64(n.size), Mode: n.mode, Nlink: n.nlink, UID: n.uid, GID: n.gid, Rdev: n.rdev,
		Blksize: uint32(s.bs), Blocks: uint64(len(n.ext))}
	a.Atime, a.AtimeNsec = uint64(n.times[0]/1e9), uint32(n.times[0]%1e9)
	a.Mtime, a.MtimeNsec = uint64(n.times[1]/1e9), uint32(n.times[1]%1e9)
	a.Ctime, a.CtimeNsec = uint64(n.times[2]/1e9), uint32(n.times[2]%1e9)
	if s.iomap {
		a.Flags = attrExclusive | attrIomap | attrAtomic
		if s.bug == "iomap without exclusive" {
			a.Flags = attrIomap
		}
		if n.flags&FlagSyncFL != 0 {
			a.Flags |= attrSync
		}
		if n.flags&FlagImmutableFL != 0 {
			a.Flags |= attrImmutable
		}
		if n.flags&FlagAppendFL != 0 {
			a.Flags |= attrAppend
		}
	}
	return a
}

func (s *refServer) entry(n *rinode) entryOut {
	n.lookups++
	return entryOut{NodeID: n.ino, Generation: 1, EntryValid: 1000, AttrValid: 1000, Attr: s.attr(n)}
}

// alloc takes a free block, or returns -1.
func (s *refServer) alloc() int64 {
	if s.bug == "double allocation" {
		if s.allocs++; s.allocs%16 == 0 {
			for _, n := range s.inodes {
				for _, e := range n.ext {
					return e.blk
				}
			}
		}
	}
	for range s.blocks {
		s.hint = (s.hint + 1) % s.blocks
		if !s.used[s.hint] {
			s.used[s.hint] = true
			return s.hint
		}
	}
	return -1
}

func (s *refServer) free(n *rinode, b int64) {
	if e, ok := n.ext[b]; ok {
		s.used[e.blk] = false
		delete(n.ext, b)
	}
}

// mapping returns the longest run of one kind that contains block b.
func (s *refServer) mapping(n *rinode, b int64) Mapping {
	e, ok := n.ext[b]
	if !ok {
		lo, hi := int64(0), int64(1)<<62/s.bs
		for x := range n.ext {
			if x < b {
				lo = max(lo, x+1)
			} else {
				hi = min(hi, x)
			}
		}
		if n.inline != nil {
			lo = max(lo, 1)
		}
		if s.bug == "short hole at the end" && hi > 1<<40 {
			hi = b + 64
		}
		return Mapping{Offset: uint64(lo * s.bs), Length: uint64((hi - lo) * s.bs), Addr: nullAddr, Type: TypeHole}
	}
	lo, hi := b, b+1
	for {
		x, ok := n.ext[lo-1]
		if !ok || x.unwritten != e.unwritten || x.blk != e.blk-(b-lo)-1 {
			break
		}
		lo--
	}
	for {
		x, ok := n.ext[hi]
		if !ok || x.unwritten != e.unwritten || x.blk != e.blk+hi-b {
			break
		}
		hi++
	}
	m := Mapping{Offset: uint64(lo * s.bs), Length: uint64((hi - lo) * s.bs), Addr: uint64((e.blk - (b - lo)) * s.bs),
		Type: TypeMapped, Dev: s.devID}
	if e.unwritten {
		m.Type = TypeUnwritten
	}
	if s.bug == "address of the run, not of its part" && lo < b {
		m.Offset, m.Length = uint64(b*s.bs), uint64((hi-b)*s.bs)
	}
	return m
}

func pure(m Mapping) Mapping {
	return Mapping{Offset: m.Offset, Length: m.Length, Addr: nullAddr, Type: TypePureOverwrite}
}

// toBlocks turns inline data into a block.
func (s *refServer) toBlocks(n *rinode) syscall.Errno {
	if n.inline == nil {
		return 0
	}
	data := n.inline
	n.inline = nil
	if len(data) > 0 {
		b := s.alloc()
		if b < 0 {
			n.inline = data
			return syscall.ENOSPC
		}
		buf := make([]byte, s.bs)
		copy(buf, data)
		s.dev.WriteAt(buf, b*s.bs)
		n.ext[0] = rext{blk: b}
	}
	if s.bug == "inline conversion without INVAL" {
		return 0
	}
	s.note(notifyInval, invalOut{NodeID: n.ino, AttrIno: n.ino, Read: byteRange{0, nullAddr}, Write: byteRange{0, nullAddr}})
	return 0
}

func (s *refServer) begin(unique uint64, node uint64, in beginIn) {
	op := s.prof.opFromWire(in.Opflags)
	s.mu.Lock()
	n := s.inodes[node]
	if n == nil {
		s.mu.Unlock()
		s.reply(unique, syscall.ESTALE)
		return
	}
	pos, count := int64(in.Pos), int64(in.Count)
	if n.inline != nil {
		if op&(OpWrite|OpWriteback) != 0 && op&OpZero == 0 && (pos+count > s.inline || op&(OpDirect|OpFault|OpWriteback) != 0) {
			if errno := s.toBlocks(n); errno != 0 {
				s.mu.Unlock()
				s.reply(unique, errno)
				return
			}
		} else if pos < s.bs {
			m := Mapping{Length: uint64(s.bs), Addr: nullAddr, Type: TypeInline}
			s.mu.Unlock()
			if s.cache && op&OpReport == 0 {
				// Known for later, though the answer does not need it.
				s.note(notifyUpsert, upsertOut{NodeID: node, AttrIno: node, Read: m, Write: s.prof.encMapping(pure(m))})
			}
			s.reply(unique, 0, beginOut{s.prof.encMapping(m), s.prof.encMapping(pure(m))})
			return
		}
	}
	allocates := op&(OpWrite|OpWriteback) != 0 && op&OpZero == 0
	if s.bug == "ZERO allocates" && op&OpZero != 0 {
		allocates = true
	}
	if s.bug == "REPORT allocates" && op&OpReport != 0 {
		allocates = true
	}
	if s.bug == "HOLE for WRITE" && op&OpWriteback == 0 || s.bug == "HOLE for WRITEBACK" && op&OpWriteback != 0 {
		allocates = false
	}
	if s.bug == "HOLE for WRITEBACK" && op&OpWriteback == 0 && op&OpDirect == 0 {
		m := Mapping{Offset: in.Pos / uint64(s.bs) * uint64(s.bs), Length: uint64(s.bs), Addr: nullAddr, Type: TypeDelalloc}
		if allocates {
			if _, ok := n.ext[pos/s.bs]; !ok {
				s.mu.Unlock()
				s.reply(unique, 0, beginOut{s.prof.encMapping(m), s.prof.encMapping(pure(m))})
				return
			}
		}
	}
	if allocates {
		for b := pos / s.bs; b*s.bs < pos+count && b < pos/s.bs+256; b++ {
			if _, ok := n.ext[b]; ok {
				continue
			}
			at := s.alloc()
			if at < 0 {
				if b > pos/s.bs {
					break
				}
				s.mu.Unlock()
				s.reply(unique, syscall.ENOSPC)
				return
			}
			n.ext[b] = rext{blk: at, unwritten: s.bug != "MAPPED before IOEND"}
			s.becomesData(at)
		}
	}
	m := s.mapping(n, pos/s.bs)
	if s.bug == "moves blocks" && allocates && m.Type == TypeMapped && m.Length > uint64(s.bs) {
		s.move(n, int64(m.Offset)/s.bs)
	}
	if op&OpAtomic != 0 || s.bug == "ATOMIC_BIO on all" && allocates {
		m.Flags |= FlagAtomicBio
	}
	if op&OpSwapfile != 0 && s.bug == "DIRTY swap file" {
		m.Flags |= FlagDirty
	}
	if op&OpWrite != 0 && s.bug == "WANT_IOMAP_END" {
		m.Flags |= FlagWantIomapEnd
	}
	w := pure(m)
	switch s.bug {
	case "unaligned length":
		if m.Type != TypeHole {
			m.Length -= 512
		}
	case "mapping before the position":
		if m.Length > uint64(s.bs) {
			m.Length = uint64(s.bs)
			w = pure(m)
		}
	case "special fields not filled":
		w.Addr = 0
	case "unknown flag":
		m.Flags |= FlagStale
	case "NULL device":
		m.Dev = 0
	}
	cacheable := s.cache && op&(OpReport|OpAtomic|OpSwapfile) == 0 && op&OpNowait == 0
	defer s.mu.Unlock() // what is told is true until it has been told
	if s.bug == "UPSERT of other than the answer" && cacheable && m.Type == TypeMapped {
		bad := m
		bad.Addr = uint64(100 * s.bs)
		s.note(notifyUpsert, upsertOut{NodeID: node, AttrIno: node, Read: bad, Write: s.prof.encMapping(w)})
	} else if cacheable {
		var errno syscall.Errno
		if s.bug != "RETRY_CACHE without UPSERT" {
			errno = s.note(notifyUpsert, upsertOut{NodeID: node, AttrIno: node, Read: s.prof.encMapping(m), Write: s.prof.encMapping(w)})
		}
		if errno == 0 || s.bug == "RETRY_CACHE whatever UPSERT says" {
			// A range that was asked for a moment ago is not found in the cache: it
			// is answered, lest it goes on for ever.
			if s.bug == "RETRY_CACHE for ever" || !s.again(n, pos, op) {
				r := m
				r.Type, r.Addr, r.Dev, r.Flags = TypeRetryCache, nullAddr, 0, 0
				if s.bug == "RETRY_CACHE in the write slot" {
					w = r
					r = m
				}
				s.reply(unique, 0, beginOut{s.prof.encMapping(r), s.prof.encMapping(w)})
				return
			}
		}
	}
	s.reply(unique, 0, beginOut{s.prof.encMapping(m), s.prof.encMapping(w)})
}

type asked struct {
	pos int64
	op  Op
}

var lastAsked sync.Map // of *rinode to asked, for servers of all tests

func (s *refServer) again(n *rinode, pos int64, op Op) bool {
	old, ok := lastAsked.Swap(n, asked{pos, op})
	return ok && old == asked{pos, op}
}

// becomesData is the end of metadata that a block held.
func (s *refServer) becomesData(blk int64) {
	if s.meta == nil || s.bug == "no BACKING_INVAL" {
		return
	}
	s.note(notifyBackingInval, backingInvalOut{Dev: s.devID, Range: byteRange{uint64(blk * s.bs), uint64(s.bs)}})
}

// move puts a block elsewhere, data and all, and tells nobody.
func (s *refServer) move(n *rinode, b int64) {
	e := n.ext[b]
	at := s.alloc()
	if at < 0 {
		return
	}
	buf := make([]byte, s.bs)
	s.dev.ReadAt(buf, e.blk*s.bs)
	s.dev.WriteAt(buf, at*s.bs)
	n.ext[b] = rext{blk: at}
	s.used[e.blk] = false
}

func (s *refServer) ioend(unique, node uint64, in ioendIn) {
	if s.bug == "deadlock of IOEND" {
		s.mu.Lock()
		n := s.inodes[node]
		s.mu.Unlock()
		n.mu.Lock() // held by FSYNC, which waits for something that never comes
		defer n.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.inodes[node]
	switch {
	case n == nil:
		s.reply(unique, syscall.ESTALE)
		return
	case s.bug == "ENOSYS for IOEND":
		s.reply(unique, syscall.ENOSYS)
		return
	case in.Error != 0 && s.bug != "error IOEND converts":
		s.reply(unique, syscall.Errno(-in.Error))
		return
	case in.Flags&IOEndSwapoff != 0:
		s.reply(unique, 0, ioendOut{uint64(n.size)})
		return
	}
	pos, end := int64(in.Pos), int64(in.Pos+in.Written)
	for b := pos / s.bs; b*s.bs < end; b++ {
		if e, ok := n.ext[b]; ok && e.unwritten && s.bug != "conversion dropped" {
			if s.bug == "last partial block not converted" && end < (b+1)*s.bs {
				continue
			}
			n.ext[b] = rext{blk: e.blk}
		}
	}
	if in.Error == 0 && s.bug != "size by END only" {
		n.size = max(n.size, end)
	}
	size := n.size
	switch s.bug {
	case "newsize too small":
		size = max(n.size-1, 0)
	case "size rounded to blocks":
		n.size = (n.size + s.bs - 1) / s.bs * s.bs
		size = n.size
	}
	s.reply(unique, 0, ioendOut{uint64(size)})
}

func (s *refServer) truncate(n *rinode, size int64) syscall.Errno {
	if n.inline != nil {
		if size <= s.inline {
			n.inline = append(n.inline[:min(int64(len(n.inline)), size)], make([]byte, max(0, size-int64(len(n.inline))))...)
			n.size = size
			return 0
		}
		if errno := s.toBlocks(n); errno != 0 {
			return errno
		}
	}
	keep := (size + s.bs - 1) / s.bs
	if s.bug == "truncate frees the last block" {
		keep = size / s.bs
	}
	for b := range n.ext {
		if b >= keep {
			s.free(n, b)
		}
	}
	if !s.iomap && size < n.size {
		s.zeroPart(n, size, keep*s.bs)
	}
	n.size = size
	if s.bug == "truncate does not set the size" {
		n.size++
	}
	return 0
}

func (s *refServer) fallocate(n *rinode, in fallocateIn) syscall.Errno {
	if errno := s.toBlocks(n); errno != 0 {
		return errno
	}
	off, end := int64(in.Offset), int64(in.Offset+in.Length)
	first, last := (off+s.bs-1)/s.bs, end/s.bs
	if s.bug == "punch takes partial blocks" {
		first, last = off/s.bs, (end+s.bs-1)/s.bs
	}
	switch {
	case in.Mode&FallocPunchHole != 0:
		for b := first; b < last; b++ {
			s.free(n, b)
		}
	case in.Mode&FallocZeroRange != 0:
		for b := first; b < last; b++ {
			if e, ok := n.ext[b]; ok {
				n.ext[b] = rext{e.blk, true}
			}
		}
	}
	if s.bug == "punch zeroes the wrong side" && in.Mode&FallocPunchHole != 0 && end%s.bs != 0 {
		if e, ok := n.ext[end/s.bs]; ok {
			s.dev.WriteAt(make([]byte, s.bs-end%s.bs), e.blk*s.bs+end%s.bs)
		}
	}
	if !s.iomap && in.Mode&^FallocKeepSize != 0 {
		// The kernel zeroes parts of blocks only where it has the data.
		s.zeroPart(n, off, min(first*s.bs, end))
		s.zeroPart(n, max(last*s.bs, off), end)
	}
	if in.Mode&FallocPunchHole == 0 {
		for b := off / s.bs; b*s.bs < end; b++ {
			if _, ok := n.ext[b]; !ok {
				at := s.alloc()
				if at < 0 {
					return syscall.ENOSPC
				}
				n.ext[b] = rext{at, true}
				s.becomesData(at)
			}
		}
	}
	if in.Mode&FallocKeepSize == 0 || s.bug == "KEEP_SIZE sets the size" {
		n.size = max(n.size, end)
	}
	return 0
}

// zeroPart zeroes bytes of written blocks.
func (s *refServer) zeroPart(n *rinode, from, to int64) {
	for from < to {
		b := from / s.bs
		c := min(to, (b+1)*s.bs) - from
		if e, ok := n.ext[b]; ok && !e.unwritten {
			s.dev.WriteAt(make([]byte, c), e.blk*s.bs+from%s.bs)
		}
		from += c
	}
}

// readData reads a file as the server sees it.
func (s *refServer) readData(n *rinode, off, count int64) []byte {
	count = min(count, n.size-off)
	if count <= 0 {
		return nil
	}
	out := make([]byte, count)
	if n.inline != nil {
		copy(out, n.inline[min(off, int64(len(n.inline))):])
		return out
	}
	for i := int64(0); i < count; {
		b := (off + i) / s.bs
		c := min(count-i, s.bs-(off+i)%s.bs)
		if e, ok := n.ext[b]; ok && !e.unwritten {
			s.dev.ReadAt(out[i:i+c], e.blk*s.bs+(off+i)%s.bs)
		}
		i += c
	}
	return out
}

func (s *refServer) writeData(n *rinode, p []byte, off int64) syscall.Errno {
	end := off + int64(len(p))
	if n.inline != nil && end <= s.inline {
		if int64(len(n.inline)) < end {
			n.inline = append(n.inline, make([]byte, end-int64(len(n.inline)))...)
		}
		copy(n.inline[off:], p)
		n.size = max(n.size, end)
		return 0
	}
	if errno := s.toBlocks(n); errno != 0 {
		return errno
	}
	for len(p) > 0 {
		b := off / s.bs
		e, ok := n.ext[b]
		if !ok || e.unwritten {
			if !ok {
				if e.blk = s.alloc(); e.blk < 0 {
					return syscall.ENOSPC
				}
			}
			s.dev.WriteAt(make([]byte, s.bs), e.blk*s.bs)
			n.ext[b] = rext{blk: e.blk}
			s.becomesData(e.blk)
		}
		c := min(int64(len(p)), s.bs-off%s.bs)
		s.dev.WriteAt(p[:c], e.blk*s.bs+off%s.bs)
		p, off = p[c:], off+c
	}
	n.size = max(n.size, end)
	return 0
}

// reap frees an inode that has no name and no references.
func (s *refServer) reap(n *rinode) {
	if n.nlink > 0 || n.lookups > 0 || n.opens > 0 {
		return
	}
	for b := range n.ext {
		s.free(n, b)
	}
	delete(s.inodes, n.ino)
}

func (s *refServer) String() string { return fmt.Sprintf("%v cache %v bs %d", s.prof, s.cache, s.bs) }
