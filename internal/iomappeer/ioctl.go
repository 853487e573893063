package iomappeer

import "syscall"

// backing is a registered device.
type backing struct {
	id   uint32
	dev  BlockDev
	size int64
	ro   bool
	bs   uint32
}

// A ReadOnly device says so by ReadOnly() true: its writes get EACCES.
type readOnlyDev interface{ ReadOnly() bool }

const (
	supportFileIO = 1 << 0
	supportAtomic = 1 << 1

	backingIomap  = 1
	maxBackingID  = 1024
	backingTypeOf = 0xff
)

func (k *Kernel) ioctl(req uint32, arg []byte) (int, syscall.Errno) {
	n, errno := k.doIoctl(req, arg)
	k.event(nil, "ioctl %#x = %d %v", req, n, errno)
	return n, errno
}

func (k *Kernel) doIoctl(req uint32, arg []byte) (int, syscall.Errno) {
	if req == iocSyncInit {
		if k.attached.Load() {
			return -1, syscall.EINVAL
		}
		k.syncInit.Store(true)
		return 0, 0
	}
	if k.cfg.Stock {
		return -1, syscall.ENOTTY
	}
	switch req {
	case iocIomapSupport:
		var s iomapSupport
		if k.mayIomap {
			s.Flags = supportFileIO | supportAtomic
		}
		if len(arg) < size(s) {
			return -1, syscall.EFAULT
		}
		copy(arg, enc(s))
		return 0, 0
	case iocAddIomap:
		if k.cfg.NoIomap {
			return -1, syscall.EPERM
		}
		if k.attached.Load() && k.prof == May26 {
			return -1, syscall.EINVAL
		}
		k.addedIomap.Store(true)
		return 0, 0
	case iocSetNofs:
		var v uint32
		if _, ok := dec(arg, &v); !ok {
			return -1, syscall.EFAULT
		}
		if !k.attached.Load() || !k.mayIomap {
			return -1, syscall.EPERM
		}
		if v > 1 {
			return -1, syscall.EINVAL
		}
		return 0, 0
	case iocBackingOpen:
		return k.backingOpen(arg)
	case iocBackingClose:
		return k.backingClose(arg)
	case iocSetBlocksize:
		return k.setBlocksize(arg)
	}
	return -1, syscall.ENOTTY
}

func (k *Kernel) backingOpen(arg []byte) (int, syscall.Errno) {
	var m backingMap
	if _, ok := dec(arg, &m); !ok {
		return -1, syscall.EFAULT
	}
	switch {
	case m.Flags&^backingTypeOf != 0 || m.Padding != 0:
		return -1, syscall.EINVAL
	case m.Flags&backingTypeOf > backingIomap:
		return -1, syscall.EOPNOTSUPP
	case m.Flags&backingTypeOf != backingIomap || !k.iomapOn():
		return -1, syscall.EPERM
	case k.cfg.Resolve == nil:
		return -1, syscall.EBADF
	}
	dev, errno := k.cfg.Resolve(m.FD)
	if errno != 0 {
		return -1, errno
	}
	b := &backing{dev: dev, size: dev.Size()}
	if r, ok := dev.(readOnlyDev); ok {
		b.ro = r.ReadOnly()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for range maxBackingID {
		id := k.nextDev
		if k.nextDev++; k.nextDev > maxBackingID {
			k.nextDev = 1
		}
		if k.devs[id] == nil {
			b.id = id
			k.devs[id] = b
			return int(id), 0
		}
	}
	return -1, syscall.ENOSPC
}

func (k *Kernel) backingClose(arg []byte) (int, syscall.Errno) {
	var id uint32
	if _, ok := dec(arg, &id); !ok {
		return -1, syscall.EFAULT
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.devs[id] == nil:
		return -1, syscall.ENOENT
	case k.prof == V7 || k.iomapInos.Load() > 0:
		return -1, syscall.EBUSY
	}
	delete(k.devs, id)
	return 0, 0
}

func (k *Kernel) setBlocksize(arg []byte) (int, syscall.Errno) {
	var m backingInfo
	if _, ok := dec(arg, &m); !ok {
		return -1, syscall.EFAULT
	}
	if !k.iomapOn() {
		return -1, syscall.EOPNOTSUPP
	}
	b := k.backing(m.ID)
	switch {
	case b == nil:
		return -1, syscall.ENOENT
	case m.Blocksize < 512 || m.Blocksize > 64<<10 || m.Blocksize&(m.Blocksize-1) != 0:
		return -1, syscall.EINVAL
	}
	k.mu.Lock()
	b.bs = m.Blocksize
	k.mu.Unlock()
	return 0, 0
}

func (k *Kernel) iomapOn() bool { return k.negotiated.Load() }

func (k *Kernel) backing(id uint32) *backing {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.devs[id]
}
