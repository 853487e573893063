package iomappeer

import (
	"errors"
	"fmt"
	"syscall"
)

// Mount does what mount(2) and the first requests do: INIT, CONFIG, and the root
// folder's attributes. The server must be reading already.
func (k *Kernel) Mount() error {
	if k.attached.Swap(true) {
		return syscall.EBUSY
	}
	if k.addedIomap.Load() {
		k.mayIomap = true
	}
	t := k.task("mount")
	root := &Inode{k: k, nodeid: k.cfg.RootNodeID, nlookup: 1, dir: true, mode: syscall.S_IFDIR | 0o755, nlink: 2}
	root.init()
	k.root = root
	k.mu.Lock()
	k.inodes[root.nodeid] = root
	k.mu.Unlock()
	if err := k.initialise(t); err != nil {
		k.abort(syscall.ENOTCONN)
		return err
	}
	if k.iomap {
		if err := k.config(t); err != nil {
			k.abort(syscall.ENOTCONN)
			return err
		}
	}
	k.mounted.Store(true)
	if errno := root.getattr(t, true); errno != 0 {
		return fmt.Errorf("attributes of the root: %w", errno)
	}
	if !k.cfg.NoChecks {
		// Opcodes of no kernel: 63 is behind the stock ones, 4000 before the
		// series' own.
		for _, op := range []uint32{63, 4000} {
			_, errno := k.call(k.checkTask(), op, root.nodeid, 0, 1<<20)
			k.expect("A16", errno == syscall.ENOSYS, nil, "unknown opcode %d is answered by %v, want ENOSYS", op, errno)
		}
	}
	return nil
}

func (k *Kernel) initialise(t *task) error {
	offer := k.cfg.Offer &^ flagIomap
	minor := uint32(minorIomap)
	if k.cfg.Stock {
		minor = minorStock
		offer |= flagIomap // the pool of buffers for io_uring has this bit there
	} else if k.mayIomap {
		offer |= flagIomap
	}
	in := initIn{Major: 7, Minor: minor, MaxReadahead: 128 << 10, Flags: uint32(offer), Flags2: uint32(offer >> 32)}
	b, errno := k.call(t, opInit, 0, 8, 64, in)
	if errno != 0 {
		return fmt.Errorf("INIT: %w", errno)
	}
	var out initOut
	if len(b) != size(out) {
		return fmt.Errorf("INIT: a reply of %d bytes, want 64", len(b))
	}
	dec(b, &out)
	if out.Major != 7 {
		return fmt.Errorf("INIT: major %d", out.Major)
	}
	flags := uint64(out.Flags)
	if flags&flagInitExt != 0 {
		flags |= uint64(out.Flags2) << 32
	}
	k.expect("A16", out.Unused == [11]uint16{}, nil, "INIT reply has reserved words set: %v", out.Unused)
	k.minor = out.Minor
	if k.cfg.Stock {
		k.expect("A17", flags&flagIomap == 0, nil, "bit 43 is set in the INIT reply to a stock kernel, where it is not iomap")
	} else {
		k.iomap = k.mayIomap && flags&flagIomap != 0
		if !k.mayIomap {
			k.expect("A17", flags&flagIomap == 0, nil, "iomap is set in the INIT reply, but was not offered")
		}
		if k.iomap {
			k.expect("A17", out.Minor >= minorIomap, nil,
				"minor %d in the INIT reply: the kernel then ignores EXCLUSIVE and IOMAP on every inode", out.Minor)
		}
	}
	k.initFlags = flags & (offer | flagIomap)
	k.maxWrite = min(max(int(out.MaxWrite), pageSize), k.cfg.MaxPages*pageSize)
	k.timeGran = max(out.TimeGran, 1)
	k.negotiated.Store(k.iomap)
	return nil
}

func (k *Kernel) config(t *task) error {
	in := configIn{Flags: k.cfg.ConfigOffer | k.cfg.Faults.ConfigBits, MaxBytes: k.cfg.MaxBytes,
		CacheMaxbytes: k.cfg.CacheMaxbytes}
	b, errno := k.call(t, opIomapConfig, 0, 0, size(configOut{}), in)
	if errno == syscall.ENOSYS {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("CONFIG: %w", errno)
	}
	var out configOut
	dec(append(b, make([]byte, size(out)-len(b))...), &out)
	bad := func(format string, args ...any) error {
		err := fmt.Sprintf("CONFIG: "+format, args...)
		k.violate("A1", nil, "%s", err)
		return fmt.Errorf("%s: %w", err, syscall.EINVAL)
	}
	k.eval("A1")
	k.expect("A16", out.TailPad == 0, nil, "CONFIG reply's tail padding is %#x", out.TailPad)
	k.expect("A17", out.Flags&^k.cfg.ConfigOffer == 0, nil, "CONFIG reply has flags %#x, of which %#x were offered", out.Flags,
		k.cfg.ConfigOffer)
	switch {
	case out.Flags&^configAll != 0:
		return bad("flags %#x", out.Flags)
	case out.UUIDLen > 16:
		return bad("s_uuid_len %d", out.UUIDLen)
	case out.Pad != [3]uint8{}:
		return bad("s_pad %v", out.Pad)
	}
	if out.Flags&configBlocksize != 0 {
		if n := out.Blocksize; n < 512 || n > 64<<10 || n&(n-1) != 0 {
			return bad("s_blocksize %d", n)
		}
		k.bs = int64(out.Blocksize)
	}
	if out.Flags&configTime != 0 {
		if out.TimeGran < 1 || out.TimeGran > 1_000_000_000 {
			return bad("s_time_gran %d", out.TimeGran)
		}
		k.timeGran = out.TimeGran
	}
	if out.Flags&configMaxbytes != 0 {
		if out.MaxBytes < 0 || out.MaxBytes > k.cfg.MaxBytes {
			return bad("s_maxbytes %d", out.MaxBytes)
		}
		k.maxbytes = out.MaxBytes
	}
	if out.Flags&configCacheMaxbytes != 0 && out.CacheMaxbytes != 0 {
		k.cacheMax = min(max(out.CacheMaxbytes, 256), 2<<20)
	}
	return nil
}

// Unmount writes everything back, lets go of all inodes, and sends DESTROY. While
// a file is open it fails with EBUSY.
func (k *Kernel) Unmount() error {
	for _, in := range k.allInodes() {
		if in.open() > 0 {
			return syscall.EBUSY
		}
	}
	if !k.mounted.Swap(false) {
		return syscall.EINVAL
	}
	t := k.task("unmount")
	var errs []error
	for _, in := range k.allInodes() {
		if errno := in.writeInode(t); errno != 0 {
			errs = append(errs, fmt.Errorf("write back node %d: %w", in.nodeid, errno))
		}
	}
	k.destroying.Store(true)
	k.killsb.Lock()
	defer k.killsb.Unlock()
	for _, in := range k.allInodes() {
		if in != k.root {
			in.evict(t)
		}
	}
	if _, errno := k.call(t, opDestroy, 0, 0, 0); errno != 0 && errno != syscall.ENOSYS {
		errs = append(errs, fmt.Errorf("DESTROY: %w", errno))
	}
	k.abort(syscall.ENOTCONN)
	return errors.Join(errs...)
}

// Crash cuts the connection as it stands: what is in the page cache is lost, and
// the server sees the device go. What the device holds is all that is left.
func (k *Kernel) Crash() {
	k.mounted.Store(false)
	k.abort(syscall.ENOTCONN)
}

// Freeze is FIFREEZE: writers wait until Thaw.
func (k *Kernel) Freeze() syscall.Errno {
	if !k.iomap {
		return syscall.EOPNOTSUPP
	}
	k.frozen.Lock()
	t := k.task("freeze")
	errno := k.syncfs(t)
	if errno == 0 {
		_, errno = k.call(t, opFreezeFS, k.root.nodeid, 0, 0, uint64(k.removes.Load()))
		if errno == syscall.ENOSYS {
			errno = syscall.EOPNOTSUPP
		}
	}
	if errno != 0 {
		k.frozen.Unlock()
		return errno
	}
	k.isFrozen.Store(true)
	return 0
}

// Thaw is FITHAW.
func (k *Kernel) Thaw() syscall.Errno {
	if !k.isFrozen.Swap(false) {
		return syscall.EINVAL
	}
	defer k.frozen.Unlock()
	_, errno := k.call(k.task("thaw"), opUnfreezeFS, k.root.nodeid, 0, 0)
	if errno == syscall.ENOSYS {
		errno = 0
	}
	return errno
}

// Shutdown is what the loss of the device or a forced shutdown sends.
func (k *Kernel) Shutdown() syscall.Errno {
	_, errno := k.call(k.task("shutdown"), opShutdownFS, k.root.nodeid, 0, 0, uint64(0))
	k.shut.Store(true)
	return errno
}

// Sync is syncfs(2).
func (k *Kernel) Sync() syscall.Errno { return k.syncfs(k.task("syncfs")) }

func (k *Kernel) syncfs(t *task) syscall.Errno {
	var ins []*Inode
	for _, in := range k.allInodes() {
		if in.pin() {
			ins = append(ins, in)
			defer in.unpin(t)
		}
	}
	marks := make([]int, len(ins))
	var first syscall.Errno
	for i, in := range ins {
		marks[i] = in.model.mark()
		if errno := in.writeInode(t); errno != 0 && first == 0 {
			first = errno
		}
	}
	_, errno := k.call(t, opSyncfs, k.root.nodeid, 0, 0, uint64(0))
	if errno == syscall.ENOSYS {
		errno = 0
	}
	if first == 0 {
		first = errno
	}
	if first == 0 {
		for i, in := range ins {
			in.model.durableTo(marks[i])
			in.namesSafe()
		}
	}
	return first
}

// Statfs is statfs(2).
func (k *Kernel) Statfs() (Statfs, syscall.Errno) {
	var s Statfs
	errno := k.callInto(k.task("statfs"), opStatfs, k.root.nodeid, &s)
	return s, errno
}
