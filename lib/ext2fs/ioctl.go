package ext2fs

import (
	"bytes"
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Flags returns the inode's flags as FS_IOC_GETFLAGS does: those that users may
// see.
func (ip *Inode) Flags() uint32 {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.visibleFlags()
}

func (ip *Inode) visibleFlags() uint32 {
	f := ip.raw.Base().Flags.Get() & ondisk.FlUserVisible
	if ip.isReg() {
		f &^= ondisk.FlagProjinherit
	}
	return f
}

// maskFlags cuts flags to those that make sense for a type of file.
func maskFlags(mode uint16, flags uint32) uint32 {
	switch mode & ondisk.ModeFmt {
	case ondisk.ModeDir:
		return flags
	case ondisk.ModeReg:
		return flags &^ flagsNotReg
	}
	return flags & flagsOther
}

// SetFlags sets the inode's flags as FS_IOC_SETFLAGS does: flags that users see
// but cannot change stay as they are. Whether the caller may touch immutable,
// append-only and journal-data is for him to know. The extents flag migrates the
// inode, see [Inode.Migrate]. It fails with EOPNOTSUPP for flags that nobody
// knows and changes that are not supported, EPERM for a change of an inode that
// is immutable and stays so.
func (ip *Inode) SetFlags(flags uint32) error {
	fs := ip.fs
	if flags&^ondisk.FlUserVisible != 0 {
		return syscall.EOPNOTSUPP
	}
	ip.mu.Lock()
	defer ip.mu.Unlock()
	migrate := false
	err := ip.setFlagsLocked(func(old uint32) (uint32, error) {
		flags := flags & ondisk.FlUserModifiable
		old &= ondisk.FlUserModifiable
		switch d := flags ^ old; {
		case old&flags&ondisk.FlagImmutable != 0 && d != 0:
			return 0, syscall.EPERM
		case flags != maskFlags(ip.mode(), flags):
			return 0, syscall.EOPNOTSUPP
		case d&ondisk.FlagCasefold != 0 && !fs.hasCasefold, !ip.daxCompatible(flags):
			return 0, syscall.EOPNOTSUPP
		}
		migrate = (flags^old)&ondisk.FlagExtents != 0
		return flags, nil
	}, ondisk.FlUserModifiable&^ondisk.FlagExtents)
	if err == nil && migrate {
		err = ip.migrate(flags&ondisk.FlagExtents != 0)
	}
	return err
}

// daxCompatible says whether the flags may become flags as far as DAX goes, which
// nothing else may stand between the file and the device with. Data that is read
// and written here is not mapped, so the flag is kept for the kernel only. mapMu
// held.
func (ip *Inode) daxCompatible(flags uint32) bool {
	without := uint32(ondisk.FlagVerity | ondisk.FlagEncrypt | ondisk.FlagJournalData | ondisk.FlagInlineData)
	if ip.isDir() {
		without &^= ondisk.FlagInlineData
	}
	return (flags&ondisk.FlagDAX == 0 || !ip.flag(without)) && (flags&without == 0 || !ip.flag(ondisk.FlagDAX))
}

// setFlagsLocked replaces those flags in mask by what f makes of the old ones,
// and makes other changes first. mu held.
func (ip *Inode) setFlagsLocked(f func(old uint32) (uint32, error), mask uint32, also ...func() error) error {
	fs := ip.fs
	ip.mapMu.RLock()
	old := ip.raw.Base().Flags.Get()
	now, err := f(old)
	ip.mapMu.RUnlock()
	if err != nil {
		return err
	}
	if err := fs.writable(); err != nil {
		return err
	}
	now &= mask
	if d := (now ^ old) & mask & ondisk.FlagJournalData; d != 0 && ip.isReg() {
		if fs.kernelIO.On { // who moves the data of an inode cannot change while it is known
			return syscall.EOPNOTSUPP
		}
		if old&ondisk.FlagInlineData != 0 {
			if err := ip.inlineConvert(); err != nil {
				return err
			}
		}
		if err := ip.setJournalData(now&ondisk.FlagJournalData != 0); err != nil {
			return err
		}
	}
	h, err := fs.start(creditsInode)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	ip.expandExtra()
	for _, change := range also {
		if err == nil {
			err = change()
		}
	}
	if err == nil {
		ip.setFlags(now, mask&^now)
		ip.raw.SetCtime(fs.now())
		err = ip.store(h)
	}
	ip.mapMu.Unlock()
	return stop(h, err)
}

// xflags are the flags that FS_IOC_FSGETXATTR knows by other numbers.
var xflags = [...]struct{ x, flag uint32 }{
	{0x0008, ondisk.FlagImmutable},
	{0x0010, ondisk.FlagAppend},
	{0x0020, ondisk.FlagSync},
	{0x0040, ondisk.FlagNoatime},
	{0x0080, ondisk.FlagNodump},
	{0x0200, ondisk.FlagProjinherit},
	{0x8000, ondisk.FlagDAX},
}

// Fsxattr returns what FS_IOC_FSGETXATTR does: flags, by that call's numbers,
// and the project id.
func (ip *Inode) Fsxattr() (flags, projid uint32) {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	f := ip.visibleFlags()
	for _, x := range xflags {
		if f&x.flag != 0 {
			flags |= x.x
		}
	}
	return flags, ip.raw.Projid()
}

// SetFsxattr sets what FS_IOC_FSSETXATTR does: the flags that it knows, other
// flags stay; and the project id, where the file system has one (EOPNOTSUPP), in one transaction.
func (ip *Inode) SetFsxattr(flags, projid uint32) error {
	var set, mask uint32
	for _, x := range xflags {
		mask |= x.flag
		if flags&x.x != 0 {
			set |= x.flag
			flags &^= x.x
		}
	}
	if flags != 0 {
		return syscall.EOPNOTSUPP
	}
	ip.mu.Lock()
	defer ip.mu.Unlock()
	return ip.setFlagsLocked(func(old uint32) (uint32, error) {
		if err := ip.maySetProject(projid); err != nil {
			return 0, err
		}
		switch d := (set ^ old) & mask; {
		case old&set&ondisk.FlagImmutable != 0 && d != 0:
			return 0, syscall.EPERM
		case !ip.daxCompatible(set), set != maskFlags(ip.mode(), set):
			return 0, syscall.EOPNOTSUPP
		}
		return set, nil
	}, mask, func() error { return ip.setProject(projid) })
}

// UUID returns the file system's UUID.
func (fs *FS) UUID() (u [16]byte) {
	fs.errMu.Lock()
	defer fs.errMu.Unlock()
	return fs.sb.UUID
}

// Label returns the file system's label.
func (fs *FS) Label() string {
	fs.errMu.Lock()
	defer fs.errMu.Unlock()
	b, _, _ := bytes.Cut(fs.sb.VolumeName[:], []byte{0})
	return string(b)
}

// opsSuperCopy is a backup of the superblock, at the start of its block.
var opsSuperCopy buffer.Ops = superCopyOps{}

type superCopyOps struct{ plainOps }

// Name implements buffer.Ops.
func (superCopyOps) Name() string { return "backup superblock" }

// Seal implements buffer.Ops.
func (superCopyOps) Seal(data []byte, _ buffer.Block, _ buffer.Ctx) {
	if s := endian.View[ondisk.Super](data); s.Magic.Get() == ondisk.SuperMagic {
		sealSuper(s)
	}
}

// maxSuperCopies is how many backups SetLabel keeps in step.
const maxSuperCopies = 32

// SetLabel sets the label, of at most 16 bytes (EINVAL), in the superblock and
// its backups.
func (fs *FS) SetLabel(label string) error {
	if len(label) > len(fs.sb.VolumeName) || bytes.IndexByte([]byte(label), 0) >= 0 {
		return syscall.EINVAL
	}
	h, err := fs.start(creditsSuper + maxSuperCopies)
	if err != nil {
		return err
	}
	h.Sync = true
	return stop(h, func() error {
		if err := h.GetWrite(fs.sbuf); err != nil {
			return err
		}
		fs.errMu.Lock()
		clear(fs.sb.VolumeName[:])
		copy(fs.sb.VolumeName[:], label)
		fs.errMu.Unlock()
		h.Dirty(fs.sbuf)
		n := 0
		for g := ondisk.Group(1); g < fs.groups && n < maxSuperCopies; g++ {
			if !fs.groupHasSuper(g) {
				continue
			}
			n++
			b, err := fs.cache.Read(buffer.Block(fs.groupFirst(g)), opsSuperCopy, buffer.Ctx{})
			if err != nil {
				return err
			}
			s := endian.View[ondisk.Super](b.Data())
			if s.Magic.Get() == ondisk.SuperMagic {
				if err = h.GetWrite(b); err == nil {
					clear(s.VolumeName[:])
					copy(s.VolumeName[:], label)
					h.Dirty(b)
				}
			}
			b.Put()
			if err != nil {
				return err
			}
		}
		return nil
	}())
}

// Trim discards free space as FITRIM does: in the bytes [start, start+n), in
// runs of at least minlen bytes. It returns how many bytes that were. It fails
// with EINVAL, and with EOPNOTSUPP if the device cannot.
func (fs *FS) Trim(start, n, minlen uint64) (uint64, error) {
	if start>>fs.blockBits >= uint64(fs.blocks) || n < uint64(fs.blockSize) ||
		minlen>>fs.blockBits > uint64(fs.blocksPerGroup) {
		return 0, syscall.EINVAL
	}
	if g := blockdev.InfoOf(fs.dev).DiscardGranularity; g > 0 {
		minlen = max(minlen, uint64(g))
	}
	end := uint64(fs.blocks)
	if e := start + n; e >= start {
		end = min(end, e>>fs.blockBits)
	}
	done, err := fs.trimBlocks(ondisk.Fsblk(start>>fs.blockBits), ondisk.Fsblk(end),
		uint32(min(minlen>>fs.blockBits, uint64(fs.blocksPerGroup))))
	if errors.Is(err, errors.ErrUnsupported) {
		err = syscall.EOPNOTSUPP
	}
	return done << fs.blockBits, err
}
