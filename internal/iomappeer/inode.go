package iomappeer

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An Inode is an inode that the kernel holds references to.
//
// Locks, outermost first: rwsem, invalidate, folio, ioendMu, mu. The first three
// are held across requests as the kernel holds them; mu and what is behind it
// never are.
type Inode struct {
	k      *Kernel
	nodeid uint64 // immutable
	gen    uint64 // immutable

	rwsem      sync.RWMutex // i_rwsem
	invalidate sync.RWMutex // invalidate_lock
	typ        uint32       // immutable: the type in the mode
	dir        bool         // immutable
	iomap      bool         // immutable once instantiated, but for the root
	exclusive  bool
	atomicOK   bool
	fresh      bool // made by this mount: it has no blocks that the peer does not know

	ioendMu sync.Mutex // one IOEND of an inode at a time

	mu        sync.Mutex // guards the rest
	attrIno   uint64
	mode      uint32
	nlink     uint32
	uid, gid  uint32
	rdev      uint32
	flags     uint32 // of fuse_attr
	isize     int64
	diskSize  int64 // i_disk_size
	sizeLimit int64 // the largest size that was established on disk, for A6
	atime     int64
	mtime     int64
	ctime     int64
	timesDue  bool // the server has not got them yet
	attrTill  time.Time
	nlookup   uint64
	opens     int
	bad       bool
	dead      bool
	wberr     syscall.Errno // of writeback, for the next fsync
	swapping  bool
	names     []dname // that lead here, as far as this mount has made or found them
	renamed   bool    // they changed since the last sync
	pins      int     // by those who walk over all inodes
	leaving   bool    // to be evicted when the last pin goes

	pages pageCache
	cache mapCache
	model *model
	known known

	evicted atomic.Bool
	freeing atomic.Int64 // operations under way that may free blocks
	freeGen atomic.Int64 // how many there have been
	talk    traffic      // requests that may change mappings
	stamped traffic      // requests with attributes in their reply, or that change some
}

// traffic tells whether something went on during a request. What an answer says
// can be compared with what is known only if nothing did.
type traffic struct{ under, count atomic.Int64 }

func (q *traffic) enter() int64 {
	q.under.Add(1)
	return q.count.Add(1)
}

func (q *traffic) leave() { q.under.Add(-1) }

// alone reports whether nothing but the request that entered as at went on since.
func (q *traffic) alone(at int64) bool { return q.under.Load() == 1 && q.count.Load() == at }

func (in *Inode) init() {
	in.pages.init()
	in.model = &model{off: in.k.cfg.CountOnly}
	in.model.init()
	in.known.init()
}

// NodeID returns the inode's node id.
func (in *Inode) NodeID() uint64 { return in.nodeid }

// Size returns i_size.
func (in *Inode) Size() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.isize
}

// DiskSize returns the size that the kernel believes to be on disk.
func (in *Inode) DiskSize() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.diskSize
}

// Mode returns the inode's type and permissions.
func (in *Inode) Mode() uint32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.mode
}

// Nlink returns the link count.
func (in *Inode) Nlink() uint32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.nlink
}

func (in *Inode) open() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.opens
}

// IsIomap reports whether the inode's data goes by iomap.
func (in *Inode) IsIomap() bool { return in.iomap }

// named notes that an inode has got a name, or lost one. made is false for one
// that was found: it was there before.
func (in *Inode) named(n dname, has, made bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	i := slices.Index(in.names, n)
	switch {
	case has && i < 0:
		in.names = append(in.names, n)
	case !has && i >= 0:
		in.names = slices.Delete(in.names, i, i+1)
	default:
		return
	}
	if made {
		in.renamed = true
	}
}

// namesSafe notes that the names are on disk.
func (in *Inode) namesSafe() {
	in.mu.Lock()
	in.renamed = false
	in.mu.Unlock()
}

func (k *Kernel) inode(node uint64) *Inode {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inodes[node]
}

func (k *Kernel) allInodes() []*Inode {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*Inode
	for _, in := range k.inodes {
		out = append(out, in)
	}
	sortBy(out, func(in *Inode) uint64 { return in.nodeid })
	return out
}

func validity(sec uint64, nsec uint32) time.Time {
	if sec > 1<<31 {
		sec = 1 << 31
	}
	return time.Now().Add(time.Duration(sec)*time.Second + time.Duration(nsec))
}

// instantiate is what the kernel makes of an entry in a reply: one more lookup of
// the inode, which is new or refreshed. since is how many inodes had been evicted
// when it was asked for.
func (k *Kernel) instantiate(e *entryOut, created bool, since int64) (*Inode, syscall.Errno) {
	a := &e.Attr
	typ := a.Mode & syscall.S_IFMT
	switch {
	case e.NodeID == 0 || e.NodeID == k.root.nodeid:
		k.violate("NAME", nil, "an entry names node %d", e.NodeID)
		return nil, syscall.EIO
	case typ == 0:
		k.violate("ATTR", nil, "an entry for node %d has mode %#o", e.NodeID, a.Mode)
		return nil, syscall.EIO
	}
	for {
		in, fresh := k.iget(e, created, since)
		if !fresh && created {
			k.violate("NAME", in, "a new file has the node of one that is referenced")
		}
		in.mu.Lock()
		if in.dead { // it is on its way out: the reply is about one that begins anew
			in.mu.Unlock()
			continue
		}
		in.nlookup++
		in.leaving = false
		in.mu.Unlock()
		in.update(a, e.AttrValid, e.AttrValidNsec)
		return in, 0
	}
}

// iget finds the inode of an entry, or makes it.
func (k *Kernel) iget(e *entryOut, created bool, since int64) (in *Inode, fresh bool) {
	a := &e.Attr
	typ := a.Mode & syscall.S_IFMT
	k.mu.Lock()
	old := k.inodes[e.NodeID]
	if old != nil && old.gen == e.Generation && old.typ == typ {
		k.mu.Unlock()
		return old, false
	}
	in = &Inode{k: k, nodeid: e.NodeID, gen: e.Generation, typ: typ, dir: typ == syscall.S_IFDIR, fresh: created}
	in.init()
	in.setFlags(a.Flags)
	if in.iomap {
		k.iomapInos.Add(1)
	}
	if m, ok := k.evicted[e.NodeID]; ok && m.gen == e.Generation && m.when > since {
		a.Size = uint64(m.size) // the reply is older
	}
	in.isize, in.diskSize, in.sizeLimit = int64(a.Size), int64(a.Size), int64(a.Size)
	in.atime, in.mtime, in.ctime = stamp(a.Atime, a.AtimeNsec), stamp(a.Mtime, a.MtimeNsec), stamp(a.Ctime, a.CtimeNsec)
	if !in.rememberedLocked(int64(a.Size), created) {
		in.model.start(int64(a.Size), created)
	}
	k.inodes[e.NodeID] = in
	k.mu.Unlock()
	if old != nil {
		k.violate("NAME", in, "node %d comes back as another inode while the old one is referenced", e.NodeID)
	}
	return in, true
}

// known content of inodes that were evicted: what was written to them is not
// forgotten, nor what of it is safe.
type memory struct {
	gen     uint64
	model   *model
	renamed bool
	size    int64 // on disk
	when    int64 // how many were evicted by then
}

// rememberedLocked takes up what was known of an inode when it was evicted, and
// reports whether anything was. k.mu is held, and nobody else knows the inode.
func (in *Inode) rememberedLocked(size int64, created bool) bool {
	k := in.k
	old, ok := k.evicted[in.nodeid]
	delete(k.evicted, in.nodeid)
	if !ok || created || old.gen != in.gen || old.model.length() != size {
		return false
	}
	in.model, in.renamed = old.model, old.renamed
	return true
}

// stays keeps an inode that was to be evicted later; it reports whether it is
// still there.
func (in *Inode) stays() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leaving = false
	return !in.dead
}

func stamp(sec uint64, nsec uint32) int64 { return int64(sec)*1e9 + int64(nsec) }

// setFlags takes the attribute flags that only the first reply can set.
func (in *Inode) setFlags(flags uint32) {
	k := in.k
	if !k.iomap || k.minor < minorIomap {
		return
	}
	in.exclusive = flags&attrExclusive != 0
	wantIomap := flags&attrIomap != 0
	k.expect("A17", !wantIomap || in.exclusive, in, "attribute flags %#x have IOMAP without EXCLUSIVE", flags)
	if !in.exclusive {
		return
	}
	in.iomap = wantIomap && !in.dir
	in.atomicOK = flags&attrAtomic != 0
}

// update takes the attributes of a reply. Of files that the kernel owns, the size
// and the times in it mean nothing.
func (in *Inode) update(a *Attr, sec uint64, nsec uint32) {
	k := in.k
	in.mu.Lock()
	defer in.mu.Unlock()
	if in == k.root && !in.exclusive && k.iomap && k.minor >= minorIomap && a.Flags&attrExclusive != 0 {
		in.exclusive = true
	}
	if in.attrIno != 0 && in.attrIno != a.Ino {
		k.violate("ATTR", in, "fuse_attr.ino changes from %d to %d", in.attrIno, a.Ino)
	}
	if in.mode != 0 && in.mode&syscall.S_IFMT != a.Mode&syscall.S_IFMT {
		k.violate("ATTR", in, "the type in the mode changes from %#o to %#o", in.mode, a.Mode)
		in.bad = true
		return
	}
	in.attrIno = a.Ino
	in.mode, in.nlink, in.uid, in.gid, in.rdev = a.Mode, a.Nlink, a.UID, a.GID, a.Rdev
	in.flags = a.Flags
	in.attrTill = validity(sec, nsec)
	if in.iomap {
		k.checks.mu.Lock()
		k.checks.evals["ATTR"]++
		k.checks.mu.Unlock()
		if a.Flags&(attrExclusive|attrIomap) != attrExclusive|attrIomap {
			k.violate("ATTR", in, "attribute flags %#x of an iomap file lack EXCLUSIVE or IOMAP", a.Flags)
		}
		return
	}
	in.isize, in.diskSize = int64(a.Size), int64(a.Size)
	in.atime, in.mtime, in.ctime = stamp(a.Atime, a.AtimeNsec), stamp(a.Mtime, a.MtimeNsec), stamp(a.Ctime, a.CtimeNsec)
}

// attrIn returns fuse_attr.ino for a message.
func (in *Inode) attrInode() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.attrIno
}

// getattr asks for the attributes unless the cached ones are still good.
func (in *Inode) getattr(t *task, force bool) syscall.Errno {
	in.mu.Lock()
	good := time.Now().Before(in.attrTill)
	in.mu.Unlock()
	if good && !force {
		return 0
	}
	_, errno := in.fetchAttr(t)
	return errno
}

func (in *Inode) fetchAttr(t *task) (Attr, syscall.Errno) {
	var out attrOut
	stamp := in.stamped.enter()
	defer in.stamped.leave()
	if errno := in.k.callInto(t, opGetattr, in.nodeid, &out, getattrIn{}); errno != 0 {
		return Attr{}, errno
	}
	in.k.expect("A16", out.Dummy == 0, in, "the reserved word of an attribute reply is %#x", out.Dummy)
	if in.stamped.alone(stamp) { // else it may be older than what is known, as a version tells the kernel
		in.update(&out.Attr, out.AttrValid, out.AttrValidNsec)
	}
	return out.Attr, 0
}

// evict is what the kernel does when the last reference goes: pages and mappings
// are dropped, and the lookups given back.
func (in *Inode) evict(t *task) {
	k := in.k
	in.mu.Lock()
	if in.dead || in.pins > 0 || in.opens > 0 {
		in.leaving = in.pins > 0
		in.mu.Unlock()
		k.dents.forget(in)
		return
	}
	in.dead = true
	n := in.nlookup
	iomap := in.iomap
	keep := iomap && in.nlink > 0
	m := memory{in.gen, in.model, in.renamed, in.diskSize, k.evictions.Add(1)}
	in.mu.Unlock()
	in.evicted.Store(true)
	k.mu.Lock()
	if k.inodes[in.nodeid] == in {
		delete(k.inodes, in.nodeid)
		if keep {
			k.evicted[in.nodeid] = m
		}
	}
	k.mu.Unlock()
	k.dents.forget(in)
	in.pages.drop(0, maxLFS, k.folioSize())
	in.cache.reset()
	k.claims.release(in, 0, maxLFS)
	if iomap {
		k.iomapInos.Add(-1)
	}
	k.post(t, &request{op: opForget, node: in.nodeid}, n)
}

// pin keeps an inode from being evicted; it reports whether it is still there.
func (in *Inode) pin() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.dead {
		return false
	}
	in.pins++
	return true
}

func (in *Inode) unpin(t *task) {
	in.mu.Lock()
	in.pins--
	evict := in.pins == 0 && in.leaving && in.opens == 0
	in.mu.Unlock()
	if evict {
		in.evict(t)
	}
}

// dropIfUnused lets an unlinked inode go once nobody has it open.
func (in *Inode) dropIfUnused(t *task) {
	in.mu.Lock()
	gone := in.nlink == 0 && in.opens == 0 && !in.dead && in.mode&syscall.S_IFMT != 0
	in.mu.Unlock()
	if gone {
		in.evict(t)
	}
}

// Forget lets an inode go that nobody has open, as memory pressure would: what is
// dirty is written back first.
func (k *Kernel) Forget(in *Inode) syscall.Errno {
	t := k.task("forget")
	in.mu.Lock()
	busy := in.opens > 0 || in == k.root
	in.mu.Unlock()
	if busy {
		return syscall.EBUSY
	}
	if errno := in.writeInode(t); errno != 0 {
		return errno
	}
	in.evict(t)
	return 0
}

// DropCaches drops the clean pages of an inode.
func (k *Kernel) DropCaches(in *Inode) { in.pages.dropClean() }

// usable returns EIO for an inode that no operation works on any more.
func (in *Inode) usable() syscall.Errno {
	if in.k.shut.Load() {
		return syscall.EIO
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.bad:
		return syscall.EIO
	case in.dead:
		return syscall.ESTALE
	}
	return 0
}

// touch takes the time for the timestamps named, of a file whose times the kernel
// owns.
func (in *Inode) touch(mtime, ctime, atime bool) {
	now := in.k.now()
	now -= now % int64(in.k.timeGran)
	in.mu.Lock()
	defer in.mu.Unlock()
	if mtime {
		in.mtime = now
	}
	if ctime {
		in.ctime = now
	}
	if atime {
		in.atime = now
	}
	in.timesDue = true
}

// frees runs an operation in which the server may free blocks of [from, to): what
// is known of them ends before it is asked, since it may give them away before we
// see its answer.
func (in *Inode) frees(from, to int64, f func()) {
	in.talk.enter()
	defer in.talk.leave()
	in.freeing.Add(1)
	in.freeGen.Add(1)
	in.k.claims.release(in, from, to)
	f()
	in.freeGen.Add(1)
	in.freeing.Add(-1)
}
