package fsck

import (
	"slices"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dirBatch is some blocks of directories, in the order of pass 2, and what a scout
// has to report of them.
type dirBatch struct {
	at     int // in the list of all blocks
	blocks []dirBlock
	dx     []*dxDir
	buf    []byte // the blocks, but for those that are nowhere
	fetched,
	sound []bool
	ends   []dirMark // how far the report had come after each block
	report report
}

// dirMark is how far the lists of a report had come.
type dirMark struct{ seen, kids, dots, refs int }

// batchBytes is how much of directories is read together.
const batchBytes = 256 << 10

// nextBatch fills in the next batch from block *at of the list on.
func (c *checker) nextBatch(b *dirBatch, at *int) bool {
	n := min(len(c.dblist)-*at, max(batchBytes>>c.blockBits, 1))
	if n <= 0 {
		return false
	}
	b.at = *at
	b.blocks = append(b.blocks[:0], c.dblist[*at:*at+n]...)
	b.dx = b.dx[:0]
	for _, d := range b.blocks {
		x := c.dx[d.ino]
		if x != nil && x.bad {
			x = nil
		}
		b.dx = append(b.dx, x)
	}
	*at += n
	b.eachRun(func(i, k int) {
		if b.blocks[i].blk != 0 {
			c.prefetch(int64(b.blocks[i].blk)<<c.blockBits, int64(k)<<c.blockBits)
		}
	})
	return true
}

// eachRun calls f with runs of blocks that lie beside each other, from i on.
func (b *dirBatch) eachRun(f func(i, k int)) {
	for i := 0; i < len(b.blocks); {
		k := 1
		for i+k < len(b.blocks) && b.blocks[i].blk != 0 && b.blocks[i+k].blk == b.blocks[i].blk+ondisk.Fsblk(k) {
			k++
		}
		f(i, k)
		i += k
	}
}

func (b *dirBatch) block(i int, bits uint) []byte {
	return b.buf[i<<bits : (i+1)<<bits : (i+1)<<bits]
}

// scout goes through a batch ahead of pass 2.
func (b *dirBatch) scout(c *checker) {
	n := len(b.blocks)
	b.buf = slices.Grow(b.buf[:0], n<<c.blockBits)[:n<<c.blockBits]
	b.fetched, b.sound = slices.Grow(b.fetched[:0], n)[:n], slices.Grow(b.sound[:0], n)[:n]
	b.eachRun(func(i, k int) {
		ok := b.blocks[i].blk != 0 && c.readAt(b.buf[i<<c.blockBits:(i+k)<<c.blockBits], int64(b.blocks[i].blk)<<c.blockBits) == nil
		for j := i; j < i+k; j++ {
			b.fetched[j] = ok
		}
	})
	r := &b.report
	*r = report{seen: r.seen[:0], kids: r.kids[:0], dots: r.dots[:0], refs: r.refs[:0]}
	c.report = r
	b.ends = b.ends[:0]
	for i, d := range b.blocks {
		m := dirMark{len(r.seen), len(r.kids), len(r.dots), len(r.refs)}
		b.sound[i] = b.fetched[i] && c.inodeDir.test(uint64(d.ino)) && c.try(func() { c.dirBlock(d, b.block(i, c.blockBits), b.dx[i]) })
		if !b.sound[i] {
			r.seen, r.kids, r.dots, r.refs = r.seen[:m.seen], r.kids[:m.kids], r.dots[:m.dots], r.refs[:m.refs]
		}
		b.ends = append(b.ends, dirMark{len(r.seen), len(r.kids), len(r.dots), len(r.refs)})
	}
	c.report = nil
}

// adopt takes over what a scout noted of block i of a batch; false if a directory
// turns out to have two parents.
func (b *dirBatch) adopt(c *checker, i int) bool {
	var m dirMark
	if i > 0 {
		m = b.ends[i-1]
	}
	e, r, d := b.ends[i], &b.report, b.blocks[i]
	kids := r.kids[m.kids:e.kids]
	for k, ino := range kids {
		x := c.dir(ino)
		if x == nil {
			continue
		}
		if x.parent != 0 {
			for _, ino := range kids[:k] {
				if x := c.dir(ino); x != nil {
					x.parent = 0
				}
			}
			return false
		}
		x.parent = d.ino
	}
	for _, x := range r.dots[m.dots:e.dots] {
		c.setDotDot(x.dir, x.parent)
	}
	for _, lblk := range r.refs[m.refs:e.refs] {
		b.dx[i].blocks[lblk].refs++
	}
	for _, ino := range r.seen[m.seen:e.seen] {
		c.countEntry(ino)
	}
	return true
}

// scanDirs goes through all blocks of directories.
func (c *checker) scanDirs() {
	next := 0
	l := newLine(c, func(b *dirBatch) bool { return c.nextBatch(b, &next) }, func(s *checker, b *dirBatch) { b.scout(s) })
	defer l.close()
	for {
		t, fresh := l.take()
		if t == nil {
			return
		}
		b := &t.job
		c.poll()
		c.opts.Asker.Progress(2, uint64(b.at), uint64(len(c.dblist)))
		for i := range b.blocks {
			fresh = fresh && t.gen == c.gen
			if !c.inodeDir.test(uint64(b.blocks[i].ino)) || fresh && b.sound[i] && b.adopt(c, i) {
				continue
			}
			l.alone(func() { c.dirAlone(b.at + i) })
		}
		l.put(t)
	}
}

// dirAlone checks a block of the list.
func (c *checker) dirAlone(i int) {
	d := &c.dblist[i]
	if d.blk == 0 {
		if r, err := c.inode(d.ino); err == nil && r.Base().Flags.Get()&ondisk.FlagInlineData != 0 {
			c.inlineDir(d.ino, r)
			return
		}
		if !c.dirHole(d) {
			return
		}
	}
	buf := make([]byte, c.blockSize)
	if err := c.read(d.blk, buf); err != nil {
		p := at(d.ino)
		p.Blk, p.Lblk, p.Text = d.blk, int64(d.lblk), err.Error()
		if !c.fix(P2ReadDirblock, p) {
			return
		}
		clear(buf)
	}
	c.dirBlock(*d, buf, c.dx[d.ino])
}
