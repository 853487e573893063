package ext2fs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// xattrOps is an attribute block; csum says whether blocks have checksums. The
// context's Seed is FS.csumSeed, its Ino FS.maxEAInode.
type xattrOps struct{ csum bool }

// Name implements buffer.Ops.
func (xattrOps) Name() string { return "extended attributes" }

// Verify implements buffer.Ops.
func (o xattrOps) Verify(data []byte, blk buffer.Block, ctx buffer.Ctx) error {
	return ondisk.VerifyXattrBlock(data, ondisk.Fsblk(blk), ctx.Seed, o.csum, ondisk.Ino(ctx.Ino))
}

// Seal implements buffer.Ops.
func (o xattrOps) Seal(data []byte, blk buffer.Block, ctx buffer.Ctx) {
	if o.csum {
		ondisk.SealXattrBlock(data, ondisk.Fsblk(blk), ctx.Seed)
	}
}

var (
	opsXattr     buffer.Ops = xattrOps{false}
	opsXattrCsum buffer.Ops = xattrOps{true}
)

func (fs *FS) xattrKind() (buffer.Ops, buffer.Ctx) {
	ctx := buffer.Ctx{Seed: fs.csumSeed, Ino: uint32(fs.maxEAInode())}
	if fs.hasCsum {
		return opsXattrCsum, ctx
	}
	return opsXattr, ctx
}

// fsXattr is what a file system keeps to share attributes among inodes.
type fsXattr struct {
	blocks shareTable // h_hash of attribute blocks
	values shareTable // value hash of inodes that hold a value

	// Who changes the reference count of an attribute block, or its content
	// while it has one user, holds its lock: after Inode.mapMu, before
	// the mapMu of an inode that holds a value. Who reads the content holds it
	// shared: a block may have more users than it says.
	locks [64]sync.RWMutex

	marked atomic.Bool // the superblock says that there are attributes
	mu     sync.Mutex  // guards setting that, and dead
	dead   []*Inode    // to be Put once no handle is open
	ndead  atomic.Int32
	spare  sync.Pool // *[]byte of the block size
}

func (fs *FS) xattrLock(blk ondisk.Fsblk) *sync.RWMutex {
	return &fs.xattr.locks[uint64(blk)%uint64(len(fs.xattr.locks))]
}

// shareTable finds by hash what might be shared: a bounded, forgetful map, as
// the kernel's mbcache. It only hints; what it names is compared.
type shareTable struct {
	mu sync.Mutex
	e  *[1024][4]shareEntry // guarded by mu; made on first use
	n  uint8                // guarded by mu: way to evict next
}

type shareEntry struct {
	hash uint32
	at   uint64 // block or inode, 0 if unused
}

// add says that at has hash.
func (t *shareTable) add(hash uint32, at uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.e == nil {
		t.e = new([1024][4]shareEntry)
	}
	set := &t.e[hash%uint32(len(t.e))]
	free := -1
	for i := range set {
		if set[i] == (shareEntry{hash, at}) {
			return
		}
		if set[i].at == 0 {
			free = i
		}
	}
	if free < 0 {
		free = int(t.n) % len(set)
		t.n++
	}
	set[free] = shareEntry{hash, at}
}

// drop forgets that at has hash.
func (t *shareTable) drop(hash uint32, at uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.e == nil {
		return
	}
	set := &t.e[hash%uint32(len(t.e))]
	for i := range set {
		if set[i] == (shareEntry{hash, at}) {
			set[i] = shareEntry{}
		}
	}
}

// find returns what has hash, zeros among it.
func (t *shareTable) find(hash uint32) (at [4]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.e == nil {
		return at
	}
	set := &t.e[hash%uint32(len(t.e))]
	for i := range set {
		if set[i].at != 0 && set[i].hash == hash {
			at[i] = set[i].at
		}
	}
	return at
}

// has says whether at is known to have hash.
func (t *shareTable) has(hash uint32, at uint64) bool {
	for _, x := range t.find(hash) {
		if x == at {
			return true
		}
	}
	return false
}

// fileACL returns the inode's attribute block, 0 if it has none. mapMu held.
func (ip *Inode) fileACL() ondisk.Fsblk {
	b := ip.raw.FileACL()
	if !ip.fs.has64 {
		b = ondisk.Fsblk(uint32(b))
	}
	return b
}

// xattrBlock returns the inode's attribute block, pinned, and its entries; nil
// if there is none. mapMu held.
func (ip *Inode) xattrBlock() (*buffer.Buf, ondisk.XattrArea, error) {
	blk := ip.fileACL()
	if blk == 0 {
		return nil, ondisk.XattrArea{}, nil
	}
	b, err := ip.fs.xattrRead(blk)
	if err != nil {
		return nil, ondisk.XattrArea{}, ip.fs.corrupt(ip.ino, err)
	}
	return b, ondisk.XattrBlock(b.Data()), nil
}

func (fs *FS) xattrRead(blk ondisk.Fsblk) (*buffer.Buf, error) {
	if !fs.validBlock(blk, 1) {
		return nil, ondisk.At(ondisk.Corrupt("inode", 104, "attribute block %d", blk), 0, blk)
	}
	ops, ctx := fs.xattrKind()
	return fs.cache.Read(buffer.Block(blk), ops, ctx)
}

func xattrHeader(b *buffer.Buf) *ondisk.XattrHeader {
	return endian.View[ondisk.XattrHeader](b.Data())
}

// blockSet sets an attribute in the inode's attribute block, or removes it if
// v is nil; the block may become another one, shared or not. It fails with
// ENOSPC, nothing changed, if the block or the file system is full. mapMu held;
// the caller stores the inode.
func (ip *Inode) blockSet(h *jbd2.Handle, index uint8, name string, v *ondisk.XattrValue) error {
	fs := ip.fs
	old, _, err := ip.xattrBlock()
	if err != nil {
		return err
	}
	if old != nil {
		defer old.Put()
		fs.xattr.blocks.add(xattrHeader(old).Hash.Get(), uint64(old.Block()))
	} else if v == nil {
		return nil
	}

	// The new content is made apart: it may go to a block that exists.
	p, _ := fs.xattr.spare.Get().(*[]byte)
	if p == nil {
		s := make([]byte, fs.blockSize)
		p = &s
	}
	defer fs.xattr.spare.Put(p)
	data := *p
	ondisk.InitXattrBlock(data)
	if old != nil {
		mu := fs.xattrLock(ondisk.Fsblk(old.Block()))
		mu.RLock()
		copy(data[ondisk.XattrHeaderSize:], old.Data()[ondisk.XattrHeaderSize:])
		mu.RUnlock()
	}
	a := ondisk.XattrBlock(data)
	off, found := a.Find(index, name, true)
	var was eaRef
	if found {
		was = ip.eaOf(a, off)
	}
	switch {
	case v != nil:
		reserve := 0
		if fs.hasEAInode {
			reserve = ondisk.XattrBlockReserve(fs.blockSize)
		}
		if !a.Fits(off, found, name, *v, reserve) {
			return syscall.ENOSPC
		}
		err = a.Set(off, found, index, name, *v, true)
	case found:
		err = a.Remove(off)
	default:
		return nil
	}
	if err != nil {
		return fs.corrupt(ip.ino, ondisk.At(err, 0, ip.fileACL()))
	}
	ondisk.RehashXattrBlock(data)

	inPlace, err := ip.blockReplace(h, old, data, v)
	if err != nil {
		return err
	}
	if v != nil {
		ip.eaCharge(*v)
	}
	ip.eaUncharge(was)
	if inPlace {
		fs.eaDropRef(h, ip, was)
	}
	return nil
}

// blockReplace makes data the content of the inode's attribute block: in place,
// by sharing a block that has it, or in a new one. v is what was set. Each block
// holds one reference on each inode that holds a value of its; the one for v is
// the caller's to give. inPlace says that old was changed, so that the
// reference of the value replaced in it has to be given up too.
func (ip *Inode) blockReplace(h *jbd2.Handle, old *buffer.Buf, data []byte, v *ondisk.XattrValue) (inPlace bool, err error) {
	fs := ip.fs
	a := ondisk.XattrBlock(data)
	if a.Empty() {
		return false, ip.blockPoint(h, old, 0)
	}
	hash := endian.View[ondisk.XattrHeader](data).Hash.Get()
	if b := fs.xattrShare(h, hash, a, old); b != 0 {
		if v != nil {
			fs.eaDropRef(h, ip, eaRef{ino: v.Inum})
		}
		return false, ip.blockPoint(h, old, b)
	}
	if old != nil {
		mu := fs.xattrLock(ondisk.Fsblk(old.Block()))
		mu.Lock()
		if hd := xattrHeader(old); hd.Refcount.Get() <= 1 {
			if err = h.GetWrite(old); err == nil {
				fs.xattr.blocks.drop(hd.Hash.Get(), uint64(old.Block()))
				copy(old.Data(), data)
				h.Dirty(old)
				fs.xattr.blocks.add(hash, uint64(old.Block()))
			}
			mu.Unlock()
			return err == nil, err
		}
		mu.Unlock()
	}
	blk, err := fs.allocMeta(h, ip, fs.goalFor(ip, 0))
	if err != nil {
		return false, err
	}
	ops, ctx := fs.xattrKind()
	b, err := fs.cache.New(buffer.Block(blk), ops, ctx)
	if err != nil {
		return false, err
	}
	defer b.Put()
	if err := h.GetCreate(b); err != nil {
		return false, err
	}
	copy(b.Data(), data)
	h.Dirty(b)
	if old != nil { // its values have one user more
		given := v == nil || v.Inum == 0
		for off := a.First(); !a.Last(off); off = a.Next(off) {
			ino := ondisk.Ino(a.Entry(off).ValueInum.Get())
			if ino != 0 && !given && ino == v.Inum {
				given = true
			} else if ino != 0 {
				fs.eaAddRef(h, ip, ino)
			}
		}
	}
	fs.xattr.blocks.add(hash, uint64(blk))
	return false, ip.blockPoint(h, old, blk)
}

// blockPoint makes blk (0: none), in which the inode has been counted, its
// attribute block, and gives up old. mapMu held.
func (ip *Inode) blockPoint(h *jbd2.Handle, old *buffer.Buf, blk ondisk.Fsblk) error {
	var n int64
	if blk != 0 {
		n++
	}
	if old != nil {
		n--
	}
	ip.raw.SetFileACL(blk)
	ip.addBlocks(n * int64(ip.fs.clusterRatio))
	if old == nil {
		return nil
	}
	return ip.fs.xattrRelease(h, ip, old)
}

// xattrShare looks for a block with the entries a and counts one more user in
// it; 0 if there is none, or only not.
func (fs *FS) xattrShare(h *jbd2.Handle, hash uint32, a ondisk.XattrArea, not *buffer.Buf) ondisk.Fsblk {
	if hash == 0 {
		return 0
	}
	for _, at := range fs.xattr.blocks.find(hash) {
		if at == 0 || not != nil && at == uint64(not.Block()) {
			continue
		}
		if fs.xattrShareOne(h, hash, a, ondisk.Fsblk(at)) {
			return ondisk.Fsblk(at)
		}
	}
	return 0
}

func (fs *FS) xattrShareOne(h *jbd2.Handle, hash uint32, a ondisk.XattrArea, blk ondisk.Fsblk) bool {
	mu := fs.xattrLock(blk)
	mu.Lock()
	defer mu.Unlock()
	if !fs.xattr.blocks.has(hash, uint64(blk)) {
		return false // freed, or changed, since
	}
	b, err := fs.xattrRead(blk)
	if err != nil {
		fs.xattr.blocks.drop(hash, uint64(blk))
		return false
	}
	defer b.Put()
	hd := xattrHeader(b)
	n := hd.Refcount.Get()
	if n == 0 || n >= ondisk.XattrRefcountMax || hd.Hash.Get() != hash || !ondisk.XattrEqual(a, ondisk.XattrBlock(b.Data())) {
		return false
	}
	if h.GetWrite(b) != nil {
		return false
	}
	hd.Refcount.Set(n + 1)
	h.Dirty(b)
	return true
}

// xattrRelease takes one user, ip, from b, and frees it with the last, together
// with the references it holds on values' inodes.
func (fs *FS) xattrRelease(h *jbd2.Handle, ip *Inode, b *buffer.Buf) error {
	blk := ondisk.Fsblk(b.Block())
	mu := fs.xattrLock(blk)
	mu.Lock()
	defer mu.Unlock()
	hd := xattrHeader(b)
	if n := hd.Refcount.Get(); n > 1 {
		if err := h.GetWrite(b); err != nil {
			return err
		}
		hd.Refcount.Set(n - 1)
		h.Dirty(b)
		return nil
	}
	fs.xattr.blocks.drop(hd.Hash.Get(), uint64(blk))
	if a := ondisk.XattrBlock(b.Data()); fs.hasEAInode && !ip.isEA.Load() {
		for off := a.First(); !a.Last(off); off = a.Next(off) {
			fs.eaDropRef(h, ip, ip.eaOf(a, off))
		}
	}
	return fs.freeBlocks(h, blk&^ondisk.Fsblk(fs.clusterRatio-1), fs.clusterRatio, true)
}

// blockFree gives up the attribute block of an inode that is being freed. If
// refs, its values' inodes go one by one, with new credits between them. No lock
// held.
func (ip *Inode) blockFree(h *jbd2.Handle, refs bool) error {
	ip.mapMu.Lock()
	defer ip.mapMu.Unlock()
	b, a, err := ip.xattrBlock()
	if err != nil || b == nil {
		if b == nil && err != nil { // not to be read: leave it to a check
			ip.raw.SetFileACL(0)
			err = ip.store(h)
		}
		return err
	}
	defer b.Put()
	mu := ip.fs.xattrLock(ondisk.Fsblk(b.Block()))
	for refs {
		mu.Lock()
		hd := xattrHeader(b)
		off := a.First()
		for !a.Last(off) && a.Entry(off).ValueInum.Get() == 0 {
			off = a.Next(off)
		}
		if hd.Refcount.Get() > 1 || a.Last(off) {
			mu.Unlock()
			break
		}
		// As the kernel does it: the entry forgets its value, so that a crash
		// between two transactions counts nothing twice. Nobody may share the
		// block from here on.
		old := ip.eaOf(a, off)
		if err := h.GetWrite(b); err != nil {
			mu.Unlock()
			return err
		}
		ip.fs.xattr.blocks.drop(hd.Hash.Get(), uint64(b.Block()))
		e := a.Entry(off)
		e.ValueInum.Set(0)
		e.ValueSize.Set(0)
		e.Hash.Set(0)
		hd.Hash.Set(0)
		h.Dirty(b)
		mu.Unlock()
		ip.eaUncharge(old)
		ip.fs.eaDropRef(h, ip, old)
		err := ip.store(h)
		ip.mapMu.Unlock()
		if err == nil {
			err = ensure(h, creditsXattrFree)
		}
		ip.mapMu.Lock()
		if err != nil {
			return err
		}
	}
	if err := ip.blockPoint(h, b, 0); err != nil {
		return err
	}
	return ip.store(h)
}
