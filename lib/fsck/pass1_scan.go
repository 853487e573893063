package fsck

import (
	"slices"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// piece is a part of an inode table, and what a scout has to report of it.
type piece struct {
	first ondisk.Ino
	off   int64
	buf   []byte // inodes; changed in place
	err   error

	garbage []bool // blocks that hold no inodes
	badSum  []bool // inodes with a checksum that is wrong
	left    []mark // inodes left to the pass, and what was noted up to them
	end     mark   // of all
	report  report
	maps    maps
	dirState
}

// mark is how far the lists of a piece had come at an inode.
type mark struct {
	i                               int // of the piece
	claims, xattrs, dirs, dirBlocks int
	counts                          Counts
	largeFiles, largeDirs           bool
	holes                           uint64
}

const scanBytes = 128 << 10

// scanner walks over the inode tables, group by group, without what was never
// used of them.
type scanner struct {
	off  int64 // of buf on the device
	buf  []byte
	line *line[piece]

	group ondisk.Group
	done  uint32 // inodes of it
}

// nextPiece fills in the next piece.
func (c *checker) nextPiece(p *piece) bool {
	s := &c.scan
	for s.group < c.groups && s.done >= c.tables[s.group].n {
		s.group, s.done = s.group+1, 0
	}
	if s.group == c.groups {
		return false
	}
	t := c.tables[s.group]
	n := min(t.n-s.done, uint32(scanBytes/c.inodeSize))
	p.first = ondisk.Ino(uint32(s.group)*c.inodesPerGroup + s.done + 1)
	p.off = t.off + int64(s.done)*int64(c.inodeSize)
	p.buf = slices.Grow(p.buf[:0], int(n)*c.inodeSize)[:int(n)*c.inodeSize]
	s.done += n
	c.prefetch(p.off, int64(len(p.buf)))
	if p.maps.inodeUsed == nil {
		n := uint64(c.inodes) + 1
		m := &p.maps
		m.inodeUsed, m.inodeDir, m.inodeReg, m.inodeBad = newBitmap(n), newBitmap(n), newBitmap(n), newBitmap(n)
		m.links = newIcount(n)
		m.xattrs.refs = map[ondisk.Fsblk]*xattrRef{}
		p.dx = map[ondisk.Ino]*dxDir{}
	}
	return true
}

func (p *piece) inodes(size int) int { return len(p.buf) / size }

func (p *piece) inode(i, size int) ondisk.RawInode {
	return ondisk.RawInode(p.buf[i*size : (i+1)*size : (i+1)*size])
}

// fetch reads the inodes of a piece.
func (c *checker) fetch(p *piece) {
	p.err = c.readAt(p.buf, p.off)
	c.checkSums(p)
}

// checkSums finds out which checksums are wrong, and which blocks of a piece hold
// no inodes: those where that is so of most, and they make no sense either.
func (c *checker) checkSums(p *piece) {
	p.garbage, p.badSum = p.garbage[:0], p.badSum[:0]
	if !c.hasCsum {
		return
	}
	n := p.inodes(c.inodeSize)
	p.badSum = slices.Grow(p.badSum, n)[:n]
	any := false
	for i := range n {
		r := p.inode(i, c.inodeSize)
		p.badSum[i] = nonzero(r) && r.VerifyCsum(c.seed, p.first+ondisk.Ino(i)) != nil
		any = any || p.badSum[i]
	}
	if !any {
		return
	}
	p.garbage = append(p.garbage, make([]bool, len(p.buf)>>c.blockBits+1)...)
	per := c.blockSize / c.inodeSize
	for b := range p.garbage {
		bad := 0
		for i := b * per; i < min((b+1)*per, n); i++ {
			if p.badSum[i] && !c.sane(p.inode(i, c.inodeSize)) {
				bad++
			}
		}
		p.garbage[b] = bad > 1 && bad > per/2
	}
}

// inodeAlone checks inode i of a piece.
func (c *checker) inodeAlone(p *piece, i int) {
	r := p.inode(i, c.inodeSize)
	b := i * c.inodeSize >> c.blockBits
	bad := i < len(p.badSum) && p.badSum[i]
	if bad && c.report == nil { // it may have been written since
		bad = r.VerifyCsum(c.seed, p.first+ondisk.Ino(i)) != nil
	}
	c.inodePass1(p.first+ondisk.Ino(i), r, b < len(p.garbage) && p.garbage[b], bad)
}

// scout goes through a piece ahead of pass 1.
func (p *piece) scout(c *checker) {
	c.fetch(p)
	p.left = p.left[:0]
	if p.err != nil {
		return // it is told of first
	}
	r := &p.report
	*r = report{claims: r.claims[:0], xattrs: r.xattrs[:0]}
	was, wasDirs := c.maps, c.dirState
	shared := c.maps
	m := &p.maps
	m.meta, m.inodeBB, m.lowDtime, m.badList = shared.meta, shared.inodeBB, shared.lowDtime, shared.badList
	m.largeFiles, m.largeDirs, m.holes = false, false, 0
	clear(m.xattrs.refs)
	p.dirs, p.dblist = p.dirs[:0], p.dblist[:0]
	clear(p.dx)
	c.maps, c.dirState = p.maps, p.dirState
	c.report, c.res.Counts = r, Counts{}
	at := 0
	here := func() mark {
		return mark{at, len(r.claims), len(r.xattrs), len(c.dirs), len(c.dblist), c.res.Counts, c.largeFiles, c.largeDirs, c.holes}
	}
	for n := p.inodes(c.inodeSize); at < n; {
		m := here()
		// One recover for all inodes up to the next that is left.
		if c.try(func() {
			for ; at < n; at++ {
				m = here()
				r.base = m.claims
				c.inodeAlone(p, at)
			}
		}) {
			break
		}
		ino := uint64(p.first) + uint64(at)
		c.inodeUsed.clear(ino)
		c.inodeDir.clear(ino)
		c.inodeReg.clear(ino)
		c.inodeBad.clear(ino)
		c.links.set(ino, 0)
		r.claims, r.xattrs, c.dirs, c.dblist = r.claims[:m.claims], r.xattrs[:m.xattrs], c.dirs[:m.dirs], c.dblist[:m.dirBlocks]
		c.res.Counts, c.largeFiles, c.largeDirs, c.holes = m.counts, m.largeFiles, m.largeDirs, m.holes
		p.left = append(p.left, m)
		at++
	}
	p.end = here()
	p.maps, p.dirState = c.maps, c.dirState
	c.maps, c.dirState, c.report = was, wasDirs, nil
}

// adopt takes over what a scout noted of the inodes of a piece between two marks.
func (c *checker) adopt(p *piece, from, to *mark) {
	first, n := uint64(p.first)+uint64(from.i), uint64(to.i-from.i)
	c.inodeUsed.merge(p.maps.inodeUsed, first, n)
	c.inodeDir.merge(p.maps.inodeDir, first, n)
	c.inodeReg.merge(p.maps.inodeReg, first, n)
	c.inodeBad.merge(p.maps.inodeBad, first, n)
	for i := p.maps.inodeUsed.next(first, first+n); i < first+n; i = p.maps.inodeUsed.next(i+1, first+n) {
		c.links.set(i, p.maps.links.get(i))
	}
	for _, r := range p.report.claims[from.claims:to.claims] {
		c.claimClusters(r.k, r.n)
	}
	for _, u := range p.report.xattrs[from.xattrs:to.xattrs] {
		c.useXattrs(u)
	}
	for _, d := range p.dirs[from.dirs:to.dirs] {
		c.addDir(d.ino)
		if x := p.dx[d.ino]; x != nil {
			c.dx[d.ino] = x
		}
	}
	blocks := p.dblist[from.dirBlocks:to.dirBlocks]
	c.dblist = append(grown(c, c.dblist, len(blocks)), blocks...)
	c.res.Counts.add(&to.counts, &from.counts)
	c.largeFiles, c.largeDirs = c.largeFiles || to.largeFiles, c.largeDirs || to.largeDirs
	c.holes += to.holes - from.holes
}

// release makes a piece ready for other inodes.
func (p *piece) release(size int) {
	first, n := uint64(p.first), uint64(p.inodes(size))
	m := &p.maps
	for _, b := range []*bitmap{m.inodeUsed, m.inodeDir, m.inodeReg, m.inodeBad} {
		b.forget(first, n)
	}
	m.links.forget(first, n)
}

// scanPiece is pass 1 for a piece that a scout went through; fresh tells that
// nothing has changed since.
func (c *checker) scanPiece(p *piece, fresh bool) {
	defer p.release(c.inodeSize)
	c.scan.off, c.scan.buf = p.off, p.buf
	n := p.inodes(c.inodeSize)
	alone := func(from, to int) {
		c.scan.line.alone(func() {
			for i := from; i < to; i++ {
				c.inodeAlone(p, i)
			}
		})
	}
	if !fresh || p.err != nil || c.holes+p.end.holes > c.mostHoles() {
		c.fetch(p)
		if p.err != nil {
			q := at(p.first)
			q.Text = p.err.Error()
			c.tell(P1ScanError, q)
		}
		alone(0, n)
		return
	}
	gen := c.gen
	from := &mark{}
	for k := range p.left {
		to := &p.left[k]
		c.adopt(p, from, to)
		alone(to.i, to.i+1)
		if c.gen != gen { // what follows may refer to what has changed
			alone(to.i+1, n)
			return
		}
		next := *to
		next.i++
		from = &next
	}
	c.adopt(p, from, &p.end)
}

// scanTables goes through all inodes.
func (c *checker) scanTables() {
	c.scan = scanner{}
	c.scan.line = newLine(c, c.nextPiece, func(s *checker, p *piece) { p.scout(s) })
	defer func() {
		c.scan.line.close()
		c.scan = scanner{}
	}()
	for {
		t, fresh := c.scan.line.take()
		if t == nil {
			return
		}
		c.poll()
		c.opts.Asker.Progress(1, uint64(t.job.first), uint64(c.inodes))
		c.scanPiece(&t.job, fresh)
		c.scan.line.put(t)
	}
}
