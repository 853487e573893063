package ext2fs

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

const (
	icacheShards = 64
	// icacheUnused is how many unused inodes each shard keeps, so that the next
	// Iget need not read and verify them again.
	icacheUnused = 16384 / icacheShards
)

// cached is the icache's part of an Inode.
type cached struct {
	refs       int32 // pins
	evicting   bool  // its blocks are being freed
	freed      bool  // it is free on disk: not to be kept
	kept       bool  // not pinned, but what was reserved for it must stay
	prev, next *Inode
}

// icache has the inodes in memory, by number.
type icache struct {
	shards [icacheShards]ishard
	kept   atomic.Int64 // inodes that are kept for what is reserved for them
	dear   atomic.Int64 // how many kept are too many, since those before were asked back
}

// keptMost is how many inodes are kept before the kernel is asked to let go of some;
// keptStep is how many more there have to be to ask again.
const (
	keptMost = 16384
	keptStep = 1024
)

// bound asks for inodes back that are kept, if there are too many. The kernel may
// use them all: then it is asked again when there are more.
func (c *icache) bound(squeeze func([]ondisk.Ino)) {
	n, dear := c.kept.Load(), c.dear.Load()
	switch {
	case squeeze == nil:
	case n < keptMost:
		if dear != keptMost {
			c.dear.Store(keptMost)
		}
	case n >= dear && c.dear.CompareAndSwap(dear, n+keptStep):
		squeeze(c.keptInodes())
	}
}

type ishard struct {
	mu    sync.Mutex
	inode map[ondisk.Ino]*Inode
	holds map[ondisk.Ino]uint64 // references of a server, see FS.Hold
	// Unused inodes, in a ring from the one used last to the one used least
	// recently; root is no inode.
	root   Inode
	unused int
	_      [64]byte
}

func (c *icache) init() {
	for i := range c.shards {
		s := &c.shards[i]
		s.inode = make(map[ondisk.Ino]*Inode)
		s.holds = make(map[ondisk.Ino]uint64)
		s.root.prev, s.root.next = &s.root, &s.root
	}
}

func (c *icache) shard(ino ondisk.Ino) *ishard { return &c.shards[uint32(ino)%icacheShards] }

// use takes ip out of the ring of the unused, or of those that are kept.
func (s *ishard) use(ip *Inode) {
	if ip.kept {
		ip.kept = false
		ip.fs.ic.kept.Add(-1)
		return
	}
	ip.prev.next, ip.next.prev = ip.next, ip.prev
	ip.prev, ip.next = nil, nil
	s.unused--
}

// retire puts ip into the ring, and drops the oldest if they are too many.
func (s *ishard) retire(ip *Inode, limit int) {
	ip.prev, ip.next = &s.root, s.root.next
	ip.next.prev, s.root.next = ip, ip
	s.unused++
	for s.unused > limit {
		old := s.root.prev
		s.use(old)
		delete(s.inode, old.ino)
	}
}

// igetMode says what Iget accepts.
type igetMode int

const (
	igetNormal  igetMode = iota
	igetEA               // an inode that holds the value of an attribute
	igetSpecial          // an inode that may have no type: reserved, or being replayed
)

// Iget returns inode ino, pinned. It fails with ESTALE if there is none, and
// with a CorruptError if its bytes contradict themselves.
func (fs *FS) Iget(ino ondisk.Ino) (*Inode, error) { return fs.iget(ino, igetNormal) }

func (fs *FS) iget(ino ondisk.Ino, mode igetMode) (*Inode, error) {
	if mode != igetSpecial && fs.isReserved(ino) {
		return nil, ondisk.Corrupt("inode number", 0, "%d is reserved", ino)
	}
	s := fs.ic.shard(ino)
	s.mu.Lock()
	if ip, err := s.pinLocked(ino); ip != nil || err != nil {
		s.mu.Unlock()
		return ip.admit(mode, err)
	}
	s.mu.Unlock()
	if err := fs.loadable(ino, mode); err != nil {
		return nil, err
	}
	b, slot, err := fs.readItable(ino)
	if err != nil {
		return nil, fs.corrupt(ino, err)
	}
	defer b.Put()
	if err := fs.checkUnlinked(slot, ino, mode); err != nil {
		return nil, err
	}

	// Nobody stores to the slot of an inode that is not in memory, so it is
	// copied under the shard's lock.
	s.mu.Lock()
	if ip, err := s.pinLocked(ino); ip != nil || err != nil {
		s.mu.Unlock()
		return ip.admit(mode, err)
	}
	ip := &Inode{fs: fs, ino: ino, raw: make(ondisk.RawInode, fs.inodeSize)}
	mu := fs.slotLock(ino)
	mu.Lock() // the inode's i_dtime may be changing, see setDtime
	copy(ip.raw, slot)
	mu.Unlock()
	if err := fs.checkInode(ip.raw, ino); err != nil && !(mode == igetSpecial && err == syscall.ESTALE) {
		s.mu.Unlock()
		return nil, fs.corrupt(ino, err)
	}
	ip.identify()
	if fs.jnl != nil {
		// What changed it before it left memory may not be committed.
		tid := uint32(fs.jnl.Running())
		ip.syncTid.Store(tid)
		ip.dataSyncTid.Store(tid)
	}
	ip.refs = 1
	s.inode[ino] = ip
	s.mu.Unlock()
	return ip.admit(mode, nil)
}

// isReserved says whether ino is of the file system itself, and no entry may name it.
func (fs *FS) isReserved(ino ondisk.Ino) bool {
	return ino < fs.firstIno && ino != ondisk.RootIno || ino != 0 && slices.Contains(fs.ownIno[:], ino)
}

// identify derives from raw what does not change while the inode lives.
func (ip *Inode) identify() {
	ip.gen = ip.raw.Base().Generation.Get()
	ip.typ = ip.mode() & ondisk.ModeFmt
	ip.isEA.Store(ip.flag(ondisk.FlagEAInode))
	if ip.fs.hasCsum {
		ip.seed = ondisk.InodeSeed(ip.fs.csumSeed, ip.ino, ip.gen)
	}
}

// admit returns ip, or puts it back if it is not what mode allows.
func (ip *Inode) admit(mode igetMode, err error) (*Inode, error) {
	if err != nil {
		return nil, err
	}
	if mode == igetNormal && ip.isEA.Load() || mode == igetEA && !ip.isEA.Load() {
		err := ip.fs.corrupt(ip.ino, ondisk.Corrupt("inode", 32, "ea_inode flag is %v", ip.isEA.Load()))
		ip.fs.eaPut(ip) // locks may be held
		return nil, err
	}
	return ip, nil
}

// loadable fails with ESTALE if ino is not in use, as far as that is cheap to
// know: what lies in the never used part of an inode table is not an inode.
func (fs *FS) loadable(ino ondisk.Ino, mode igetMode) error {
	if ino == 0 || uint32(ino) > fs.inodes {
		return syscall.ESTALE
	}
	if mode == igetSpecial || !fs.hasCsum && !fs.hasGDTCsum {
		return nil
	}
	g, err := fs.groupOf(ondisk.Group(uint32(ino-1) / fs.inodesPerGroup))
	if err != nil {
		return fs.corrupt(ino, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flags&ondisk.BGInodeUninit != 0 || uint32(ino-1)%fs.inodesPerGroup >= fs.inodesPerGroup-g.itableUnused {
		return syscall.ESTALE
	}
	return nil
}

// checkUnlinked fails with ESTALE if an inode without links is not in use: the
// bytes of a freed inode look like those of an unlinked one.
func (fs *FS) checkUnlinked(slot ondisk.RawInode, ino ondisk.Ino, mode igetMode) error {
	mu := fs.slotLock(ino)
	mu.Lock()
	links := slot.Base().LinksCount.Get()
	mu.Unlock()
	if links != 0 || mode == igetSpecial || fs.isOrphan(ino) {
		return nil
	}
	used, err := fs.inodeUsed(ino)
	if err == nil && !used {
		err = syscall.ESTALE
	}
	return err
}

// pinLocked returns ino pinned if it is in memory, nil if not. It fails with
// ESTALE while it is being evicted: nothing leads to it any more.
func (s *ishard) pinLocked(ino ondisk.Ino) (*Inode, error) {
	ip := s.inode[ino]
	switch {
	case ip == nil:
		return nil, nil
	case ip.evicting:
		return nil, syscall.ESTALE
	case ip.refs == 0:
		s.use(ip)
	}
	ip.refs++
	return ip, nil
}

// inUse says whether ino is known in memory not to be free.
func (c *icache) inUse(ino ondisk.Ino) bool {
	s := c.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	ip := s.inode[ino]
	return ip != nil && !ip.freed || ip == nil && s.holds[ino] != 0
}

// insert adds the fresh inode ip, pinned, in place of what was in memory of the
// one that had its number before.
func (c *icache) insert(ip *Inode) {
	s := c.shard(ip.ino)
	s.mu.Lock()
	// An old one is free on disk, so it has no pin but that of its eviction.
	if old := s.inode[ip.ino]; old != nil && !old.evicting && old.refs == 0 {
		s.use(old)
	}
	ip.refs = 1
	s.inode[ip.ino] = ip
	s.mu.Unlock()
}

// forget drops ino from memory if it is unused; its bytes have changed below.
func (c *icache) forget(ino ondisk.Ino) {
	s := c.shard(ino)
	s.mu.Lock()
	if ip := s.inode[ino]; ip != nil && ip.refs == 0 {
		s.use(ip)
		delete(s.inode, ino)
	}
	s.mu.Unlock()
}

// Pin adds a pin to ip; the caller already has one.
func (ip *Inode) Pin() {
	s := ip.fs.ic.shard(ip.ino)
	s.mu.Lock()
	ip.refs++
	s.mu.Unlock()
}

// Put takes back one pin. The last one of an inode that has no name and that
// nobody holds ([FS.Hold]) frees the inode and its blocks, in transactions of
// its own: the caller has no handle and no lock.
func (ip *Inode) Put() {
	s := ip.fs.ic.shard(ip.ino)
	s.mu.Lock()
	if ip.refs > 1 {
		ip.refs--
		s.mu.Unlock()
		return
	}
	if ip.refs < 1 {
		panic("ext2fs: Put of an inode that is not pinned")
	}
	ip.lastPutLocked(s)
}

// lastPutLocked takes back the last pin and unlocks s.
func (ip *Inode) lastPutLocked(s *ishard) {
	fs := ip.fs
	for released := false; ; {
		switch {
		case ip.refs > 1: // pinned while it was released
			ip.refs--
			s.mu.Unlock()
			return
		case s.inode[ip.ino] != ip: // replaced: its number is another inode's
			ip.refs = 0
			s.mu.Unlock()
			return
		}
		// With the last pin nobody else looks at raw.
		keep := ip.raw.Base().LinksCount.Get() != 0 || s.holds[ip.ino] != 0 || fs.keepUnlinked() || ip.freed
		if !keep {
			break
		}
		if s.holds[ip.ino] != 0 && fs.kernelIO.On && !ip.freed && ip.mapHolds() {
			ip.refs, ip.kept = 0, true
			fs.ic.kept.Add(1)
			s.mu.Unlock()
			return
		}
		if released || !ip.mapHolds() {
			if ip.refs = 0; ip.freed {
				delete(s.inode, ip.ino)
			} else {
				s.retire(ip, icacheUnused)
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		ip.releaseMap()
		released = true
		s.mu.Lock()
	}
	ip.evicting = true
	s.mu.Unlock()
	fs.evict(ip)
	s.mu.Lock()
	ip.evicting = false
	ip.refs = 0
	if s.inode[ip.ino] == ip {
		delete(s.inode, ip.ino)
	}
	s.mu.Unlock()
}

// keepUnlinked tells whether unlinked inodes stay: when nothing can be written.
func (fs *FS) keepUnlinked() bool { return fs.writable() != nil }

// Hold adds a reference to inode ino that needs no memory but a count, as a
// server keeps for its clients: until it is given back by Release, the inode is
// not freed, though it may have no name and no pin. The caller has it pinned.
func (fs *FS) Hold(ino ondisk.Ino) {
	s := fs.ic.shard(ino)
	s.mu.Lock()
	s.holds[ino]++
	s.mu.Unlock()
}

// Holds returns how many references of Hold there are to inode ino.
func (fs *FS) Holds(ino ondisk.Ino) uint64 {
	s := fs.ic.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds[ino]
}

// Release takes back n references of Hold, and returns how many are left. Like
// Put it may free the inode. More than were taken are ignored.
func (fs *FS) Release(ino ondisk.Ino, n uint64) uint64 {
	s := fs.ic.shard(ino)
	s.mu.Lock()
	have := s.holds[ino]
	if n < have {
		s.holds[ino] = have - n
		s.mu.Unlock()
		return have - n
	}
	delete(s.holds, ino)
	ip := s.inode[ino]
	if ip != nil && ip.kept {
		s.use(ip)
		ip.refs = 1
		s.mu.Unlock()
		ip.Put()
		return 0
	}
	gone := ip == nil && have > 0 && fs.isOrphan(ino) ||
		ip != nil && ip.refs == 0 && !ip.evicting && ip.raw.Base().LinksCount.Get() == 0
	s.mu.Unlock()
	if gone && fs.writable() == nil {
		if ip, err := fs.iget(ino, igetNormal); err == nil {
			ip.Put()
		}
	}
	return 0
}

// drop gives up all holds and all unused inodes. Inodes that are pinned still
// are a mistake of the caller, and stay as they are.
func (c *icache) drop(fs *FS) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		clear(s.holds)
		for _, ip := range s.inode {
			if ip.kept {
				s.use(ip)
				s.retire(ip, len(s.inode))
				defer ip.dropMap()
			}
		}
		for s.unused > 0 {
			ip := s.root.prev
			s.use(ip)
			if ip.raw.Base().LinksCount.Get() != 0 || fs.writable() != nil {
				delete(s.inode, ip.ino)
				continue
			}
			ip.refs = 1
			ip.lastPutLocked(s)
			s.mu.Lock()
		}
		s.mu.Unlock()
	}
}

// keptInodes returns the inodes that are kept for what is reserved for them.
func (c *icache) keptInodes() (inodes []ondisk.Ino) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for ino, ip := range s.inode {
			if ip.kept {
				inodes = append(inodes, ino)
			}
		}
		s.mu.Unlock()
	}
	return inodes
}
