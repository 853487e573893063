package ext2fs

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// The quota files of the vfsv1 format: a header, then a radix tree of four
// levels, a byte of the id each, over blocks that hold the entries.
// Kernel: fs/quota/quotaio_v2.h.
const (
	quotaBlock   = 1024 // bytes, whatever the file system has
	quotaEntry   = 72
	quotaHeader  = 16 // of a block of entries
	quotaLevels  = 4
	quotaGrace   = 7 * 24 * 3600 // seconds
	quotaVersion = 1

	quotaPerBlock = (quotaBlock - quotaHeader) / quotaEntry
)

var quotaMagic = [3]uint32{0xd9c01f11, 0xd9c01927, 0xd9c03f14}

// dquot is what an id uses.
type dquot struct {
	id            uint32
	inodes, space uint64   // space in bytes
	limits        RawQuota // what else its entry says
}

// makeQuota makes the quota files, with what the root directory and lost+found use.
func (f *formatter) makeQuota() error {
	if !f.sb.HasROCompat(ondisk.ROCompatQuota) {
		return nil
	}
	types := f.opts.QuotaTypes
	if types == 0 {
		types = QuotaUser | QuotaGroup
		if f.sb.HasROCompat(ondisk.ROCompatProject) {
			types |= QuotaProject
		}
	}
	for t := range 3 {
		if types>>t&1 == 0 {
			continue
		}
		ino := ondisk.Ino(0)
		switch t {
		case 0:
			ino = ondisk.UsrQuotaIno
			f.sb.UsrQuotaInum.Set(uint32(ino))
		case 1:
			ino = ondisk.GrpQuotaIno
			f.sb.GrpQuotaInum.Set(uint32(ino))
		case 2:
			ino = f.freeIno()
			f.sb.PrjQuotaInum.Set(uint32(ino))
		}
		if err := f.makeQuotaFile(ino, t); err != nil {
			return err
		}
	}
	return nil
}

// usage adds up what the directories use, by owner, group or project.
func (f *formatter) usage(t int) (out []dquot) {
	for _, ino := range []ondisk.Ino{ondisk.RootIno, ondisk.Ino(ondisk.GoodOldFirst)} {
		r := f.inode(ino)
		id := [3]uint32{r.UID(), r.GID(), r.Projid()}[t]
		space := r.Blocks(false) * 512
		k := 0
		for k < len(out) && out[k].id != id {
			k++
		}
		if k == len(out) {
			out = append(out, dquot{id: id})
		}
		out[k].inodes++
		out[k].space += space
	}
	slices.SortFunc(out, func(a, b dquot) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (f *formatter) makeQuotaFile(ino ondisk.Ino, t int) error {
	data := quotaFile(quotaMagic[t], quotaGraces{quotaGrace, quotaGrace}, f.usage(t))
	ms, err := f.quotaBlocks(ino, len(data)/quotaBlock)
	if err != nil {
		return f.errorf("quota inode %d: %w", ino, err)
	}
	r := f.newInode(ino, ondisk.ModeReg|0o600, 1)
	r.Base().Flags.Set(ondisk.FlagImmutable)
	r.SetSize(int64(len(data)))
	rest := data
	for _, m := range ms {
		for i := range m.n {
			rest = rest[copy(f.block(m.pblk+i), rest):]
		}
	}
	return f.setMap(ino, r, ms, 0)
}

// quotaBlocks takes the blocks for a quota file of n blocks of its own in the
// order in which mke2fs writes those: the root of the tree after the first
// path down from it.
func (f *formatter) quotaBlocks(ino ondisk.Ino, n int) (ms []mapped, err error) {
	const root = 1
	order := []int{0}
	for b := root + 1; b < n; b++ {
		order = append(order, b)
		if b == root+quotaLevels {
			order = append(order, root)
		}
	}
	per := max(f.blockSize/quotaBlock, 1)
	at := make([]uint64, ceilDiv(uint64(n), uint64(per)))
	goal := f.goal(ino)
	for _, b := range order {
		l := uint64(b / per)
		if at[l] != 0 {
			continue
		}
		first := l &^ (f.ratio - 1) // of its cluster
		for i := first; i < min(first+f.ratio, uint64(len(at))); i++ {
			if at[i] != 0 {
				at[l] = at[i] + l - i
			}
		}
		if at[l] == 0 {
			b, err := f.newBlock(goal)
			if err != nil {
				return nil, err
			}
			at[l] = b + l - first
		}
		goal = at[l] + 1
		ms = addMapped(ms, mapped{l, at[l], 1})
	}
	return ms, nil
}

// addMapped adds a block to the runs of a file: to the one before it where it
// follows on that. Runs that come to touch are not joined.
func addMapped(ms []mapped, m mapped) []mapped {
	i := 0
	for i < len(ms) && ms[i].lblk < m.lblk {
		i++
	}
	if i > 0 && ms[i-1].lblk+ms[i-1].n == m.lblk && ms[i-1].pblk+ms[i-1].n == m.pblk {
		ms[i-1].n++
		return ms
	}
	return slices.Insert(ms, i, m)
}

// quotaGraces is how long soft limits may be exceeded, by blocks and inodes, and
// flags.
type quotaGraces [3]uint32

// quotaFile returns the content of a quota file. The ids are in order, each once.
func quotaFile(magic uint32, graces quotaGraces, qs []dquot) []byte {
	le := binary.LittleEndian
	data := make([]byte, 2*quotaBlock)
	// newBlock appends a block and returns its number.
	newBlock := func() uint32 {
		data = append(data, make([]byte, quotaBlock)...)
		return uint32(len(data)/quotaBlock - 1)
	}
	leaf, n := uint32(0), 0 // block of entries that has room, and how many are in it
	for _, q := range qs {
		at := uint32(1)
		for l := range quotaLevels {
			slot := at*quotaBlock + q.id>>(24-8*l)&0xff*4
			next := le.Uint32(data[slot:])
			if next == 0 {
				if l < quotaLevels-1 {
					next = newBlock()
				} else {
					if leaf == 0 {
						leaf = newBlock()
					}
					next = leaf
				}
				le.PutUint32(data[slot:], next)
			}
			at = next
		}
		e := data[leaf*quotaBlock+quotaHeader+uint32(n)*quotaEntry:]
		le.PutUint32(e, q.id)
		l := &q.limits
		for i, v := range []uint64{l.InodeHard, l.InodeSoft, q.inodes, l.BlockHard, l.BlockSoft, q.space, l.BlockGrace, l.InodeGrace} {
			le.PutUint64(e[8+8*i:], v)
		}
		n++
		le.PutUint16(data[leaf*quotaBlock+8:], uint16(n))
		if n == quotaPerBlock {
			leaf, n = 0, 0
		}
	}
	for i, v := range []uint32{magic, quotaVersion, graces[0], graces[1], graces[2], uint32(len(data) / quotaBlock), 0, leaf} {
		le.PutUint32(data[4*i:], v)
	}
	return data
}
