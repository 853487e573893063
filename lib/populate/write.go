package populate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// An IncompleteError is what Write fails with once it has begun to change the
// device: what is on it has no superblock, and is not a file system. It unwraps
// to the reason.
type IncompleteError struct{ Err error }

// Error says why.
func (e *IncompleteError) Error() string {
	return "populating was not finished, so the image is not a file system: " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *IncompleteError) Unwrap() error { return e.Err }

// writer writes a tree. One goroutine does, so the same tree gives the same
// bytes.
type writer struct {
	ctx   context.Context
	t     *Tree
	fs    *ext2fs.FS
	pf    *prefetcher
	clock clock
	done  Totals
	round uint32 // of numbers of nodes: the inodes of those with several names
	zero  bool   // blocks of zeros become holes
	block int
	told  time.Time

	// A dry run allocates everything and writes no data.
	dry           bool
	before, after ext2fs.FreeSpace
}

// clock is the time that the file system is told: of the entry that is being
// written, so that most need no change of their times afterwards.
type clock struct {
	mu  sync.Mutex
	now ondisk.Time
}

func (c *clock) set(t ondisk.Time) {
	c.mu.Lock()
	c.now = t
	c.mu.Unlock()
}

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Unix(c.now.Sec, int64(c.now.Nsec))
}

// Write fills the file system on dev, which was just made and is not open; dev may
// be what Hold has returned. Its journal is not used. When Write returns nil, everything is on stable storage;
// when it fails after its first write, with an *IncompleteError, dev has no
// file system. Errors name the entry, and unwrap to a syscall.Errno: ENOSPC
// where it does not fit, EINTR where ctx has ended.
func (t *Tree) Write(ctx context.Context, dev blockdev.Device) (Totals, error) {
	h, held := dev.(*heldDevice)
	if !held {
		var err error
		if h, err = hold(dev); err != nil {
			return Totals{}, fmt.Errorf("superblock: %w", err)
		}
	}
	w := &writer{ctx: ctx, t: t, round: t.newRound(), zero: t.opt.Reproducible, told: time.Now()}
	began, err := w.run(h)
	if err == nil {
		err = h.commit()
	}
	switch {
	case err == nil:
		w.report(true)
		return w.done, nil
	case !began: // as it was
		if e := h.commit(); e != nil {
			err = errors.Join(err, e)
		}
		return w.done, err
	}
	return w.done, &IncompleteError{err}
}

// run opens the file system on h and fills it. began says that it has changed.
func (w *writer) run(h *heldDevice) (began bool, err error) {
	t := w.t
	sb := superOf(h)
	seed := t.opt.Seed
	if seed == ([16]byte{}) {
		for i := range seed {
			seed[i] = sb.UUID[i]
		}
	}
	rnd := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])))
	end := ondisk.Time{Sec: t.opt.Time}
	if end.Sec == 0 {
		end.Sec = int64(sb.MkfsTime.Get()) | int64(sb.MkfsTimeHi[0])<<32
	}
	w.clock.set(end)
	var rndMu sync.Mutex
	w.fs, err = ext2fs.Open(h, ext2fs.Options{
		NoLoad: true, NoBarrier: true, Populating: true,
		CommitInterval: 1 << 62, // only when a transaction is full, not when time has passed
		Now:            w.clock.get,
		Rand: func() uint32 {
			rndMu.Lock()
			defer rndMu.Unlock()
			return rnd.Uint32()
		},
	})
	if err != nil {
		return false, err
	}
	if ro, why := w.fs.ReadOnly(); ro {
		_ = w.fs.Close()
		return false, fmt.Errorf("the file system cannot be written: %s: %w", why, syscall.EROFS)
	}
	if t.opt.Prepare != nil && !w.dry {
		if err := t.opt.Prepare(w.fs); err != nil {
			_ = w.fs.Shutdown(ext2fs.ShutdownNoLogFlush)
			_ = w.fs.Close()
			return true, err
		}
	}
	w.block = w.fs.BlockSize()
	w.before = w.fs.FreeSpace()
	w.done.All = int64(t.entries)
	w.done.AllBytes = t.size
	if !w.dry || w.zero {
		w.pf = prefetch(w.ctx, t)
	}
	err = w.tree()
	if w.pf != nil {
		w.pf.close()
	}
	if err == nil {
		w.clock.set(end)
		err = w.fs.FillQuota()
	}
	w.after = w.fs.FreeSpace()
	w.clock.set(end)
	if err != nil {
		_ = w.fs.Shutdown(ext2fs.ShutdownNoLogFlush)
	}
	if e := w.fs.Close(); err == nil {
		err = e
	}
	return true, err
}

func superOf(h *heldDevice) *ondisk.Super {
	s := new(ondisk.Super)
	copy(endian.Bytes(s), h.held[:])
	return s
}

func (w *writer) tree() error {
	root, err := w.fs.Iget(ondisk.RootIno)
	if err != nil {
		return err
	}
	defer root.Put()
	if err := w.attrs(root, &w.t.root); err != nil {
		return entryErr("write", "/", err)
	}
	if err := w.dir(root, rootID, make(trail, 0, 256)); err != nil {
		return err
	}
	if w.t.root.implied && w.t.opt.Root == nil && w.t.opt.RootMode == nil && w.t.opt.Owner == nil {
		// The input does not say what its root is like: it stays as it was made,
		// but for its times.
		var a ext2fs.Attr
		root.Attr(&a)
		end := w.clockEnd()
		return root.Setattr(&ext2fs.SetAttr{Valid: ext2fs.SetAtime | ext2fs.SetMtime | ext2fs.SetCtime, Atime: end, Mtime: end, Ctime: end})
	}
	return entryErr("write", "/", w.finishDir(root, &w.t.root))
}

// clockEnd returns the time that the file system has when it is done.
func (w *writer) clockEnd() ondisk.Time {
	end := ondisk.Time{Sec: w.t.opt.Time}
	if end.Sec == 0 {
		w.fs.Super(func(s *ondisk.Super) { end.Sec = int64(s.MkfsTime.Get()) | int64(s.MkfsTimeHi[0])<<32 })
	}
	return end
}

// dir writes what is in a directory.
func (w *writer) dir(dp *ext2fs.Inode, dir nodeID, at trail) error {
	return w.t.each(dir, func(name string, d dirent) error {
		path := at.down(name)
		err := interrupted(w.ctx)
		if err == nil {
			err = w.entry(dp, name, d.id, path)
		}
		if err != nil {
			return entryErr("write", "/"+path.String(), err)
		}
		if w.done.Entries++; w.done.Entries&63 == 0 {
			w.report(false)
		}
		return nil
	})
}

// entry writes one name.
func (w *writer) entry(dp *ext2fs.Inode, name string, id nodeID, path trail) error {
	known, err := w.t.node(id)
	if err != nil {
		return err
	}
	n := &known
	several := n.links > 1 && !n.isDir()
	if several {
		ino, err := w.t.number(id, w.round)
		if err != nil {
			return err
		}
		if ino != 0 {
			return w.link(ondisk.Ino(ino), dp, name, n)
		}
	}
	w.clock.set(n.mtime)
	ip, err := w.create(dp, name, n)
	if err != nil {
		return err
	}
	defer ip.Put()
	if several {
		if err := w.t.setNumber(id, w.round, uint32(ip.Ino())); err != nil {
			return err
		}
	}
	if err := w.attrs(ip, n); err != nil {
		return err
	}
	switch n.mode & ondisk.ModeFmt {
	case ondisk.ModeDir:
		w.done.Dirs++
		if err := w.dir(ip, id, path); err != nil {
			return err
		}
		return w.finishDir(ip, n)
	case ondisk.ModeReg:
		w.done.Files++
		if err := w.data(ip, id, n); err != nil {
			return err
		}
	case ondisk.ModeLnk:
		w.done.Symlinks++
	default:
		w.done.Special++
	}
	return w.finish(ip, n)
}

// link gives an inode that is written a further name.
func (w *writer) link(ino ondisk.Ino, dp *ext2fs.Inode, name string, n *node) error {
	ip, err := w.fs.Iget(ino)
	if err != nil {
		return err
	}
	defer ip.Put()
	w.clock.set(n.mtime)
	w.done.Links++
	return w.fs.Link(ip, dp, name)
}

// create makes the inode and its entry.
func (w *writer) create(dp *ext2fs.Inode, name string, n *node) (*ext2fs.Inode, error) {
	cred := ext2fs.Cred{UID: n.uid, GID: n.gid, Verbatim: true}
	switch n.mode & ondisk.ModeFmt {
	case ondisk.ModeDir:
		ip, err := w.fs.Mkdir(dp, name, n.mode&0o1777, cred)
		if errors.Is(err, syscall.EEXIST) { // lost+found
			if ip, err = w.fs.Lookup(dp, name); err != nil {
				return nil, err
			}
			var a ext2fs.Attr
			if ip.Attr(&a); a.Mode&ondisk.ModeFmt != ondisk.ModeDir {
				ip.Put()
				return nil, syscall.EEXIST
			}
		}
		return ip, err
	case ondisk.ModeLnk:
		target, err := w.t.text(n.aux)
		if err != nil {
			return nil, err
		}
		return w.fs.Symlink(dp, name, target, cred)
	}
	return w.fs.Create(dp, name, n.mode, n.rdev, cred)
}

// attrs sets the extended attributes.
func (w *writer) attrs(ip *ext2fs.Inode, n *node) error {
	list, err := w.t.attrsOf(n)
	if err != nil || len(list) == 0 {
		return err
	}
	size := 0
	for _, x := range list {
		size += len(x.name) + len(x.value) + 16
		err := ip.Setxattr(x.name, []byte(x.value), 0, false)
		if free := w.fs.FreeSpace(); errors.Is(err, syscall.ENOSPC) && free.Free > 1 && free.FreeIno > 0 {
			return fmt.Errorf("attribute %s of %d bytes has no room in the inode or its block of attributes; "+
				"larger inodes or blocks, or the ea_inode feature, give it more: %w", x.name, len(x.value), err)
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", x.name, err)
		}
	}
	if len(list) > 1 && size > w.fs.InodeSize()-ondisk.GoodOldInodeSz-32 {
		// A block of attributes that was shared on the way may be free again. It
		// is used again from a commit on, which is here and not some time later:
		// where things lie must not depend on timing.
		return w.fs.Sync()
	}
	return nil
}

// finish gives an inode what making it could not.
func (w *writer) finish(ip *ext2fs.Inode, n *node) error {
	var a ext2fs.Attr
	ip.Attr(&a)
	set := ext2fs.SetAttr{UID: n.uid, GID: n.gid, Mode: n.mode, Atime: n.atime, Mtime: n.mtime, Ctime: n.mtime}
	set.Valid = ext2fs.SetAtime | ext2fs.SetMtime | ext2fs.SetCtime
	caps := false
	if a.Mode != n.mode && !n.isLnk() {
		set.Valid |= ext2fs.SetMode
	}
	if a.UID != n.uid || a.GID != n.gid {
		// Whoever changes the owner takes capabilities and set-id bits away.
		set.Valid |= ext2fs.SetUID | ext2fs.SetGID
		if !n.isLnk() {
			set.Valid |= ext2fs.SetMode
		}
		caps = n.attrs != 0
	}
	if set.Valid == ext2fs.SetAtime|ext2fs.SetMtime|ext2fs.SetCtime && a.Atime == n.atime && a.Mtime == n.mtime && a.Ctime == n.mtime {
		return nil
	}
	if err := ip.Setattr(&set); err != nil {
		return err
	}
	if caps {
		list, err := w.t.attrsOf(n)
		if err != nil {
			return err
		}
		for _, x := range list {
			if x.name == xattrCaps {
				return ip.Setxattr(x.name, []byte(x.value), 0, false)
			}
		}
	}
	return nil
}

// finishDir gives a directory, of which all is written, what it is to have.
func (w *writer) finishDir(ip *ext2fs.Inode, n *node) error {
	w.clock.set(n.mtime)
	valid := ext2fs.SetAtime | ext2fs.SetMtime | ext2fs.SetCtime | ext2fs.SetMode | ext2fs.SetUID | ext2fs.SetGID
	return ip.Setattr(&ext2fs.SetAttr{
		Valid: valid, Mode: n.mode, UID: n.uid, GID: n.gid, Atime: n.atime, Mtime: n.mtime, Ctime: n.mtime,
	})
}

// errEnough ends a walk that need not go on.
var errEnough = errors.New("enough")

// data writes the contents of a file.
func (w *writer) data(ip *ext2fs.Inode, id nodeID, n *node) error {
	if n.size == 0 {
		return nil
	}
	if n.size > ip.MaxBytes() {
		return syscall.EFBIG
	}
	if w.pf == nil {
		return w.dryData(ip, n)
	}
	some := false
	if err := w.t.data(n, func(seg) error { some = true; return errEnough }); err != nil && err != errEnough {
		return err
	}
	for last := !some; !last; {
		c, ok := <-w.pf.order
		if !ok {
			return w.pf.err
		}
		<-c.done
		last = c.last
		err := c.err
		if err == nil && c.id != id {
			err = badInput("data of /%s in its place", c.path)
		}
		if err == nil {
			err = w.chunk(ip, c)
		}
		c.free()
		if err != nil {
			return err
		}
	}
	return w.extend(ip, n)
}

// extend gives a file that ends in a hole its size.
func (w *writer) extend(ip *ext2fs.Inode, n *node) error {
	if ip.Size() < n.size {
		return ip.Setattr(&ext2fs.SetAttr{Valid: ext2fs.SetSize, Size: n.size})
	}
	return nil
}

// chunk writes what of a chunk is not zero, or all.
func (w *writer) chunk(ip *ext2fs.Inode, c *chunk) error {
	if w.done.Bytes += c.s.n; c.s.n >= chunkSize/2 {
		w.report(false)
	}
	if w.dry {
		return nonZero(c.buf, c.s.off, w.block, func(from, to int) error {
			_, err := ip.WriteAtPrivileged(dryZeros()[:to-from], c.s.off+int64(from))
			return err
		})
	}
	if !w.zero {
		_, err := ip.WriteAtPrivileged(c.buf, c.s.off)
		return err
	}
	return nonZero(c.buf, c.s.off, w.block, func(from, to int) error {
		_, err := ip.WriteAtPrivileged(c.buf[from:to], c.s.off+int64(from))
		return err
	})
}

// report tells how far it is, a few times a second.
func (w *writer) report(end bool) {
	if w.t.opt.Progress == nil {
		return
	}
	if now := time.Now(); end || now.Sub(w.told) > 200*time.Millisecond {
		w.told = now
		w.t.opt.Progress(w.done)
	}
}
