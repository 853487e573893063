package iomappeer

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// claim is a block of a device that a file's block lies in.
type claim struct {
	in    *Inode
	block int64 // of the file
	keep  bool  // until it is freed; else as long as some operation uses it
	users int
}

type devBlock struct {
	dev uint32
	blk int64
}

// claims is who lies where, over all inodes: for A4.
type claims struct {
	mu   sync.Mutex
	at   map[devBlock]*claim
	file map[*Inode]map[int64]devBlock
}

func (c *claims) init() {
	c.at = make(map[devBlock]*claim)
	c.file = make(map[*Inode]map[int64]devBlock)
}

// claimBlocks is how many blocks of a mapping are looked at, from the position on.
const claimBlocks = 1024

// take claims the blocks of a mapping from pos on, and reports overlaps. keep is
// for what stays when the operation is over: written data and cached mappings. It
// claims nothing while blocks of the file may be being freed: the mapping may have
// been true only when it was sent.
func (c *claims) take(in *Inode, m *Mapping, pos, count int64, keep bool) bool {
	k := in.k
	if !m.hasDev() || k.cfg.CountOnly {
		return false
	}
	bs := k.bs
	if m.Type == TypeMapped {
		keep = true
	}
	first := max(pos/bs, int64(m.Offset)/bs)
	last := min(int64(m.End())/bs, first+claimBlocks)
	if !keep {
		last = min(last, roundUp(pos+count, bs)/bs)
	}
	addr := m.at(first * bs)
	k.eval("A4")
	if k.cfg.Metadata != nil && k.cfg.Metadata(addr, (last-first)*bs) {
		k.violate("A4", in, "%v has metadata between blocks %d and %d", *m, first, last)
	}
	k.checkAliased(in, m, addr, (last-first)*bs)
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.freeing.Load() > 0 || in.evicted.Load() { // or it comes to that after us, and ends the claim
		return false
	}
	mine := c.file[in]
	if mine == nil {
		mine = make(map[int64]devBlock)
		c.file[in] = mine
	}
	for b := first; b < last; b++ {
		at := devBlock{m.Dev, m.at(b*bs) / bs}
		cl := c.at[at]
		if cl != nil && (cl.in != in || cl.block != b) && m.Flags&FlagShared == 0 {
			c.mu.Unlock()
			k.violate("A4", in, "%v puts block %d at device block %d, where block %d of node %d lies, or %s by now, after\n    %s", *m, b,
				at.blk, cl.block, cl.in.nodeid, cl.in.whereabouts(cl.block*k.bs), strings.Join(k.checks.tracer.history(cl.in.nodeid), "\n    "))
			c.mu.Lock()
			return true
		}
		if old, ok := mine[b]; ok && old != at {
			delete(c.at, old)
			cl = nil
		}
		if cl == nil {
			cl = &claim{in: in, block: b}
			c.at[at] = cl
			mine[b] = at
		}
		if keep {
			cl.keep = true
		} else {
			cl.users++
		}
	}
	return true
}

// whereabouts says what the server answers of a byte of the file.
func (in *Inode) whereabouts(pos int64) string {
	k := in.k
	var out beginOut
	body := beginIn{Opflags: k.prof.opToWire(OpReport), AttrIno: in.attrInode(), Pos: uint64(roundDown(pos, k.bs)), Count: uint64(k.bs)}
	if errno := k.callInto(k.checkTask(), opIomapBegin, in.nodeid, &out, body); errno != 0 {
		return errno.Error()
	}
	k.prof.decMapping(&out.Read)
	return fmt.Sprint(out.Read)
}

// done ends what take has claimed for one operation.
func (c *claims) done(in *Inode, m *Mapping, pos, count int64) {
	if m.Type != TypeUnwritten {
		return
	}
	bs := in.k.bs
	first := max(pos/bs, int64(m.Offset)/bs)
	last := min(int64(m.End())/bs, first+claimBlocks, roundUp(pos+count, bs)/bs)
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := first; b < last; b++ {
		at := devBlock{m.Dev, m.at(b*bs) / bs}
		cl := c.at[at]
		if cl == nil || cl.in != in || cl.block != b {
			continue
		}
		if cl.users > 0 {
			cl.users--
		}
		if cl.users == 0 && !cl.keep {
			delete(c.at, at)
			delete(c.file[in], b)
		}
	}
}

// release ends all claims of a file from byte from to byte to.
func (c *claims) release(in *Inode, from, to int64) {
	bs := in.k.bs
	c.mu.Lock()
	defer c.mu.Unlock()
	for b, at := range c.file[in] {
		if (b+1)*bs > from && b*bs < to {
			delete(c.at, at)
			delete(c.file[in], b)
		}
	}
	if len(c.file[in]) == 0 {
		delete(c.file, in)
	}
}

// placed is a range that a file has on a device.
type placed struct {
	in        *Inode
	addr, end int64
	dev       uint32
}

// CheckOverlap asks for the extents of all files and compares them. Nothing else
// may go on meanwhile.
func (k *Kernel) CheckOverlap() {
	t := k.checkTask()
	var all []placed
	for _, in := range k.allInodes() {
		if !in.iomap || in.Mode()&0o170000 != 0o100000 {
			continue
		}
		exts, errno := in.report(t, 0, maxLFS)
		if errno != 0 {
			k.violate("A1", in, "FIEMAP fails by %v", errno)
			continue
		}
		for _, m := range exts {
			if m.hasDev() && m.Flags&FlagShared == 0 {
				all = append(all, placed{in, int64(m.Addr), int64(m.Addr + m.Length), m.Dev})
			}
		}
	}
	slices.SortFunc(all, func(a, b placed) int {
		if a.dev != b.dev {
			return int(a.dev) - int(b.dev)
		}
		return int(min(max(a.addr-b.addr, -1), 1))
	})
	for i := range all {
		a := all[i]
		k.expect("A4", k.cfg.Metadata == nil || !k.cfg.Metadata(a.addr, a.end-a.addr), a.in,
			"device range [%d,%d) has metadata", a.addr, a.end)
		if i > 0 && all[i-1].dev == a.dev {
			p := all[i-1]
			k.expect("A4", p.end <= a.addr, a.in, "device range [%d,%d) overlaps [%d,%d) of node %d", a.addr, a.end, p.addr,
				p.end, p.in.nodeid)
		}
	}
}
