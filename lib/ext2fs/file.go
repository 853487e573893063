package ext2fs

import (
	"io"
	"math"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Size returns the size in bytes.
func (ip *Inode) Size() int64 {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.size()
}

// ReadAt reads the content at off, as io.ReaderAt says. Bytes of p beyond those
// that it returns may be changed. It allocates nothing; where p, off and the
// blocks are aligned as the device wishes, bytes are not copied. Atime is not
// changed. It fails with EISDIR for a directory, and EINVAL for what has no
// content.
func (ip *Inode) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, syscall.EINVAL
	}
	if err := ip.hasData(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	ip.mu.RLock()
	x := ip.fs.exec()
	n, err := x.Read(ip, p, off, ip.Size())
	ip.mu.RUnlock()
	return n, err
}

// hasData returns nil if the inode's type has content that is read and written.
func (ip *Inode) hasData() error {
	switch ip.ftype() {
	case ondisk.ModeReg, ondisk.ModeLnk, 0:
		return nil
	case ondisk.ModeDir:
		return syscall.EISDIR
	}
	return syscall.EINVAL
}

// WriteAt writes p at off, as io.WriterAt says, and sets mtime and ctime. What
// it returned is on the device, and is the file's after a crash once Fsync has
// returned. Writes inside the file run side by side, and so do those of whole
// blocks after its end; others one at a time. It fails with EFBIG beyond the largest size, with ENOSPC, and with EROFS; then
// the bytes it returns have been written.
func (ip *Inode) WriteAt(p []byte, off int64) (int, error) { return ip.write(p, off, 0) }

// WriteAtPrivileged is WriteAt for those who may take the blocks that are kept
// for the super-user.
func (ip *Inode) WriteAtPrivileged(p []byte, off int64) (int, error) {
	return ip.write(p, off, writePrivileged)
}

// WriteBack is WriteAt, or WriteAtPrivileged, for content that the caller's
// cache held: what is written to new blocks may still be in memory when it
// returns, if the device is one that writes behind. It is there before the
// transaction that makes it the file's, and before Fsync returns, which is when
// an error shows.
func (ip *Inode) WriteBack(p []byte, off int64, privileged bool) (int, error) {
	how := writeBehind
	if privileged {
		how |= writePrivileged
	}
	return ip.write(p, off, how)
}

// writeHow says how content is written.
type writeHow uint8

const (
	writePrivileged writeHow = 1 << iota // may take the blocks kept for the super-user
	writeBehind                          // need not be on the device before its transaction commits
)

func (ip *Inode) write(p []byte, off int64, how writeHow) (int, error) {
	fs := ip.fs
	if off < 0 {
		return 0, syscall.EINVAL
	}
	if err := ip.hasData(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := fs.writable(); err != nil {
		return 0, err
	}
	if fs.opts.Offline {
		if err := ip.mayWrite(); err != nil {
			return 0, err
		}
	}
	if most := ip.MaxBytes(); off >= most {
		return 0, syscall.EFBIG
	} else if int64(len(p)) > most-off {
		p = p[:most-off]
	}
	n, err := 0, error(nil)
	ip.mu.RLock()
	if ip.writesBeside(int64(len(p)), off) {
		n, err = ip.writeBlocks(p, off, how)
		ip.mu.RUnlock()
	} else {
		ip.mu.RUnlock()
		ip.mu.Lock()
		n, err = ip.writeLocked(p, off, how)
		ip.mu.Unlock()
	}
	fs.written.Add(int64(n))
	if err == nil && (fs.opts.Sync || ip.syncs()) {
		err = ip.Fsync(false)
	}
	return n, err
}

// syncs says whether every write is to be durable.
func (ip *Inode) syncs() bool {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.flag(ondisk.FlagSync)
}

// writesBeside says whether a write of n bytes at off may run beside others:
// nobody zeroes what it covers. So blocks that it covers in part hold data
// already, and where it ends after the file it covers whole blocks, and between
// the end of the file and off there is nothing to be zeroed. mu is held.
func (ip *Inode) writesBeside(n, off int64) bool {
	fs := ip.fs
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	if ip.noBlocks() || ip.journalsData() {
		return false
	}
	mask := int64(fs.blockSize - 1)
	if size := ip.size(); off+n > size {
		if (off|n)&mask != 0 {
			return false
		}
		if off <= size {
			return true
		}
		if size&mask != 0 {
			return false
		}
		// What others write there beside this one is a hole until it is in the file.
		r, err := ip.mapRun(ondisk.Lblk(size>>fs.blockBits), 0)
		return err == nil && r.state == runHole && int64(r.n) >= (off-size)>>fs.blockBits
	}
	for _, at := range [2]int64{off, off + n} {
		if at&mask != 0 {
			if r, err := ip.mapRun(ondisk.Lblk(at>>fs.blockBits), 1); err != nil || r.state != runWritten {
				return false
			}
		}
	}
	return true
}

// writeLocked is WriteAt with mu held exclusively.
func (ip *Inode) writeLocked(p []byte, off int64, how writeHow) (int, error) {
	fs := ip.fs
	if fs.hasInlineData {
		if done, err := ip.inlineWriteAt(p, off); err != nil {
			return 0, err
		} else if done {
			return len(p), nil
		}
	}
	if size := ip.Size(); off > size {
		if err := ip.zeroRange(size, off-size); err != nil {
			return 0, err
		}
	}
	if ip.JournalsData() {
		return ip.journalWrite(p, off, how&writePrivileged != 0)
	}
	return ip.writeBlocks(p, off, how)
}

// writeBlocks writes by the executor. mu is held, as writesBeside says.
func (ip *Inode) writeBlocks(p []byte, off int64, how writeHow) (int, error) {
	ip.fs.dataMu.RLock()
	defer ip.fs.dataMu.RUnlock()
	var f iomap.File = (*writer)(ip)
	if how&writePrivileged != 0 {
		f = (*rootWriter)(ip)
	}
	x := ip.fs.exec()
	if how&writeBehind != 0 {
		x.WriteNew = ip.fs.writeNew
	}
	n, err := x.Write(f, p, off, ip.Size())
	if n > 0 {
		if e := ip.touch(); err == nil {
			err = e
		}
	}
	return n, err
}

// writer is an inode's mapping, for a write that sets the times with whatever
// else it changes.
type writer Inode

func (w *writer) Begin(op iomap.Op, pos, count int64) (iomap.Pair, error) {
	return (*Inode)(w).Begin(op, pos, count)
}
func (w *writer) End(op iomap.Op, pos, count, written int64, m iomap.Mapping) error { return nil }
func (w *writer) IOEnd(e iomap.IOEnd) (int64, error)                                { return (*Inode)(w).ioEnd(e, true) }

// rootWriter is a writer that is Privileged.
type rootWriter Inode

func (w *rootWriter) Begin(op iomap.Op, pos, count int64) (iomap.Pair, error) {
	return (*Inode)(w).Begin(op|Privileged, pos, count)
}
func (w *rootWriter) End(op iomap.Op, pos, count, written int64, m iomap.Mapping) error { return nil }
func (w *rootWriter) IOEnd(e iomap.IOEnd) (int64, error)                                { return (*Inode)(w).ioEnd(e, true) }

// touchTick is how far mtime may be behind a write, in nanoseconds: the
// kernel's own clock for it is as coarse. So a stream of overwrites needs a
// transaction now and then only.
const touchTick = 4e6

// touch sets mtime and ctime, if they are more than a tick behind.
func (ip *Inode) touch() error {
	now := ip.fs.now()
	ip.mapMu.RLock()
	t := ip.raw.Mtime()
	ip.mapMu.RUnlock()
	if d := (now.Sec-t.Sec)*1e9 + int64(now.Nsec) - int64(t.Nsec); d >= 0 && d < touchTick || now.Sec == t.Sec && len(ip.raw) == ondisk.GoodOldInodeSz {
		return nil
	}
	h, err := ip.fs.start(creditsInode)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	ip.raw.SetMtime(now)
	ip.raw.SetCtime(now)
	err = ip.store(h)
	ip.mapMu.Unlock()
	return stop(h, err)
}

// zeroRange makes n bytes at off read as zeros, without allocating. mu is held
// exclusively.
func (ip *Inode) zeroRange(off, n int64) error {
	if n <= 0 {
		return nil
	}
	if ip.JournalsData() {
		return ip.journalZero(off, n)
	}
	ip.fs.dataMu.RLock()
	defer ip.fs.dataMu.RUnlock()
	x := ip.fs.exec()
	return x.ZeroRange(ip, off, n)
}

// ReadInline implements iomap.InlineFile: content that does not lie in blocks of
// its own, or whose blocks are journaled. It may be called with mu held.
func (ip *Inode) ReadInline(p []byte, off int64) (int, error) {
	ip.mapMu.RLock()
	if ip.flag(ondisk.FlagInlineData) {
		defer ip.mapMu.RUnlock()
		size := ip.size()
		if off >= size {
			return 0, io.EOF
		}
		return ip.inlineRead(p[:min(int64(len(p)), size-off)], off)
	}
	ip.mapMu.RUnlock()
	return ip.journalRead(p, off)
}

// WriteInline implements iomap.InlineFile. mu is held exclusively.
func (ip *Inode) WriteInline(p []byte, off int64) (int, error) { return ip.writeLocked(p, off, 0) }

// Fsync makes what was done to the file before the call durable; with datasync
// at least what is needed to read its content. If that is committed already the
// device is flushed, no more.
func (ip *Inode) Fsync(datasync bool) error {
	fs := ip.fs
	if fs.shut.Load() {
		return syscall.EIO
	}
	if fs.jnl == nil {
		return nil
	}
	tid := ip.syncTid.Load()
	if datasync {
		tid = ip.dataSyncTid.Load()
	}
	return fs.jnl.CommitSync(jbd2.Tid(tid))
}

// needLargeFile sets the feature large_file when a file gets as large as size.
func (fs *FS) needLargeFile(h *jbd2.Handle, size int64) error {
	if size <= math.MaxInt32 || fs.largeFile.Load() {
		return nil
	}
	l := &fs.rsvs // any lock that is a leaf
	l.mu.Lock()
	defer l.mu.Unlock()
	if !fs.sb.HasROCompat(ondisk.ROCompatLargeFile) {
		if err := fs.touchSuper(h); err != nil {
			return err
		}
		fs.sb.FeatureROCompat.Set(fs.sb.FeatureROCompat.Get() | ondisk.ROCompatLargeFile)
	}
	fs.largeFile.Store(true)
	return nil
}
