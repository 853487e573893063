package ext2fs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// quotaUse is what the ids of each kind use.
type quotaUse [3]map[uint32]*dquot

func (u *quotaUse) add(kind int, id uint32, inodes, space uint64) {
	q := u[kind][id]
	if q == nil {
		q = &dquot{id: id}
		u[kind][id] = q
	}
	q.inodes += inodes
	q.space += space
}

// FillQuota makes the quota files say what is used, by whom: all inodes are
// looked at. Limits stay. It is for a file system that was opened with
// Options.Populating or Options.Offline, once it is full or edited, as quotas are
// not counted on the way. Without the quota feature it does nothing.
func (fs *FS) FillQuota() error {
	if !fs.opts.Populating || !fs.sb.HasROCompat(ondisk.ROCompatQuota) {
		return nil
	}
	files := [3]ondisk.Ino{
		ondisk.Ino(fs.sb.UsrQuotaInum.Get()), ondisk.Ino(fs.sb.GrpQuotaInum.Get()), ondisk.Ino(fs.sb.PrjQuotaInum.Get()),
	}
	var use quotaUse
	for k := range use {
		use[k] = map[uint32]*dquot{}
	}
	if err := fs.countQuota(&use, files[2]); err != nil {
		return fmt.Errorf("counting quotas: %w", err)
	}
	for k, ino := range files {
		if ino == 0 {
			continue
		}
		graces, err := fs.keepLimits(&use, k, ino)
		if err != nil {
			return fmt.Errorf("quota inode %d: %w", ino, err)
		}
		list := make([]dquot, 0, len(use[k]))
		for q := range maps.Values(use[k]) {
			list = append(list, *q)
		}
		slices.SortFunc(list, func(a, b dquot) int { return cmp.Compare(a.id, b.id) })
		if err := fs.writeQuotaFile(ino, quotaFile(quotaMagic[k], graces, list)); err != nil {
			return fmt.Errorf("quota inode %d: %w", ino, err)
		}
	}
	return nil
}

// keepLimits adds the limits that a quota file has to what is used.
func (fs *FS) keepLimits(use *quotaUse, kind int, ino ondisk.Ino) (quotaGraces, error) {
	ip, err := fs.iget(ino, igetSpecial)
	if err != nil {
		return quotaGraces{}, err
	}
	defer ip.Put()
	return readQuotas(ip, ip.Size(), ino, quotaMagic[kind], func(q *RawQuota) bool {
		if q.InodeHard|q.InodeSoft|q.BlockHard|q.BlockSoft != 0 {
			use.add(kind, q.ID, 0, 0)
			use[kind][q.ID].limits = *q
		}
		return true
	})
}

// writeQuotaFile writes the content of a quota file, which grows if need be.
func (fs *FS) writeQuotaFile(ino ondisk.Ino, data []byte) error {
	ip, err := fs.iget(ino, igetSpecial)
	if err != nil {
		return err
	}
	defer ip.Put()
	const step = 1 << 20
	for off := 0; off < len(data); {
		n, err := ip.WriteAtPrivileged(data[off:min(off+step, len(data))], int64(off))
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// countQuota adds up what all inodes use but the file system's own.
func (fs *FS) countQuota(use *quotaUse, prj ondisk.Ino) error {
	orphans := ondisk.Ino(fs.sb.OrphanFileInum.Get())
	for no := range fs.groups {
		g, err := fs.groupOf(no)
		if err != nil {
			return err
		}
		g.mu.Lock()
		n := fs.inodesPerGroup - min(g.itableUnused, fs.inodesPerGroup)
		if g.flags&ondisk.BGInodeUninit != 0 || g.freeInodes == fs.inodesPerGroup {
			n = 0
		}
		g.mu.Unlock()
		const ahead = 64 // blocks
		for i := uint32(0); i < n; i += fs.inodesPerBlock {
			blk := i / fs.inodesPerBlock
			if blk%ahead == 0 {
				fs.cache.Readahead(buffer.Block(g.inodeTable)+buffer.Block(blk), int(min(ahead, fs.itableBlocks-blk)))
			}
			first := ondisk.Ino(uint32(no)*fs.inodesPerGroup + i + 1)
			b, _, err := fs.readItable(first)
			if err != nil {
				return err
			}
			for k := range min(fs.inodesPerBlock, n-i) {
				ino := first + ondisk.Ino(k)
				if ino < fs.firstIno && ino != ondisk.RootIno || ino == prj || ino == orphans {
					continue
				}
				off, end := int(k)*fs.inodeSize, int(k+1)*fs.inodeSize
				if err = fs.countInode(use, ondisk.RawInode(b.Data()[off:end:end])); err != nil {
					err = fmt.Errorf("inode %d: %w", ino, err)
					break
				}
			}
			b.Put()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// countInode adds what one inode uses. As in the kernel its owner pays for each
// value of an attribute that is in an inode, whoever else has it too: the space
// is in i_blocks, the inode is counted here.
func (fs *FS) countInode(use *quotaUse, raw ondisk.RawInode) error {
	base := raw.Base()
	if base.LinksCount.Get() == 0 || base.Flags.Get()&ondisk.FlagEAInode != 0 {
		return nil
	}
	space := raw.Blocks(fs.hasHugeFile)
	if fs.hasHugeFile && base.Flags.Get()&ondisk.FlagHugeFile != 0 {
		space <<= fs.blockBits
	} else {
		space <<= 9
	}
	inodes := uint64(1)
	if fs.hasEAInode {
		if a, used, ok := ondisk.InodeXattrs(raw); used && ok {
			if err := a.Check(fs.maxEAInode()); err != nil {
				return err
			}
			inodes += uint64(countEA(a))
		}
		if blk := raw.FileACL(); blk != 0 {
			b, err := fs.xattrRead(blk)
			if err != nil {
				return err
			}
			inodes += uint64(countEA(ondisk.XattrBlock(b.Data())))
			b.Put()
		}
	}
	for k, id := range [3]uint32{raw.UID(), raw.GID(), raw.Projid()} {
		use.add(k, id, inodes, space)
	}
	return nil
}
