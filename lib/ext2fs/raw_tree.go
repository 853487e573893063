package ext2fs

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ExtentCursor is a place in the extent tree of an inode, from which the tree
// is walked and edited an entry at a time. Edits are written when they return,
// with the checksums of the nodes that changed; nothing keeps the tree in
// order, nor the entries of parents in step: see FixParents.
type ExtentCursor struct {
	r     *Raw
	ino   ondisk.Ino
	raw   ondisk.RawInode
	path  []cursorLevel // from the root to the node that the cursor is in
	depth int           // of the tree
}

// cursorLevel is a node on the way, and the entry of it.
type cursorLevel struct {
	node  []byte
	blk   ondisk.Fsblk // 0: the root
	cur   int          // -1: before the first
	after bool         // what is below has been visited
}

// Move is a way of moving a cursor.
type Move int

const (
	MoveCurrent Move = iota
	MoveRoot
	MoveFirstSib
	MoveLastSib
	MoveNextSib
	MovePrevSib
	MoveUp
	MoveDown
	MoveNext // an index entry comes before what is below, and again after it
	MovePrev
	MoveNextLeaf
	MovePrevLeaf
	MoveLastLeaf
)

// ErrNoExtent is the error of a move to where there is no entry.
var ErrNoExtent = fmt.Errorf("there is no such entry: %w", syscall.ENOENT)

// CursorExtent is the entry that a cursor is at.
type CursorExtent struct {
	RawRun
	Leaf        bool
	SecondVisit bool
}

// OpenExtents returns a cursor at the root of the tree of inode ino, before
// its first entry. It fails with EINVAL if there is no tree.
func (r *Raw) OpenExtents(ino ondisk.Ino) (*ExtentCursor, error) {
	raw, err := r.Inode(ino)
	if err != nil {
		return nil, err
	}
	if raw.Base().Flags.Get()&ondisk.FlagExtents == 0 {
		return nil, fmt.Errorf("inode %d maps its blocks without extents: %w", ino, syscall.EINVAL)
	}
	c := &ExtentCursor{r: r, ino: ino, raw: raw}
	h, err := ondisk.ExtentNodeHeader(raw.Base().Block[:])
	if err != nil {
		return nil, ondisk.At(err, ino, 0)
	}
	c.depth = int(h.Depth.Get())
	c.path = []cursorLevel{{node: raw.Base().Block[:], cur: -1}}
	return c, nil
}

func (c *ExtentCursor) at() *cursorLevel { return &c.path[len(c.path)-1] }

// Level returns the level of the node, Depth that of the leaves.
func (c *ExtentCursor) Level() int { return len(c.path) - 1 }

// Depth returns the depth of the tree.
func (c *ExtentCursor) Depth() int { return c.depth }

// Node returns the number of the current entry, from 1 on, how many there are in
// the node and how many fit.
func (c *ExtentCursor) Node() (entry, entries, most int) {
	l := c.at()
	h := endian.View[ondisk.ExtentHeader](l.node)
	return l.cur + 1, int(h.Entries.Get()), int(h.Max.Get())
}

func (l *cursorLevel) entries() int {
	return int(endian.View[ondisk.ExtentHeader](l.node).Entries.Get())
}

// slot returns the bytes of entry i.
func (l *cursorLevel) slot(i int) []byte {
	return l.node[ondisk.ExtentEntry*(i+1) : ondisk.ExtentEntry*(i+2)]
}

func (c *ExtentCursor) leaf() bool { return c.Level() == c.depth }

// Get moves the cursor and returns the entry that it is at then. It fails with
// ErrNoExtent, the cursor staying where it was or, for moves to a leaf, where no
// further one was found.
func (c *ExtentCursor) Get(m Move) (CursorExtent, error) {
	if err := c.move(m); err != nil {
		return CursorExtent{}, err
	}
	for budget := uint64(c.r.geo.blocks); ; budget-- {
		ok := true
		switch m {
		case MoveNextLeaf, MovePrevLeaf:
			ok = c.leaf()
		case MoveLastLeaf:
			ok = c.leaf() && c.at().cur == c.at().entries()-1
		}
		if ok {
			return c.current()
		}
		if budget == 0 {
			return CursorExtent{}, ErrNoExtent
		}
		if err := c.move(m); err != nil {
			return CursorExtent{}, err
		}
	}
}

func (c *ExtentCursor) current() (CursorExtent, error) {
	l := c.at()
	if l.cur < 0 || l.cur >= l.entries() {
		return CursorExtent{}, ErrNoExtent
	}
	if c.leaf() {
		e := endian.View[ondisk.Extent](l.slot(l.cur))
		return CursorExtent{RawRun: RawRun{Lblk: ondisk.Lblk(e.Block.Get()), Pblk: e.Start(), Len: e.Len(), Unwritten: e.Unwritten()}, Leaf: true}, nil
	}
	e := endian.View[ondisk.ExtentIdx](l.slot(l.cur))
	x := CursorExtent{RawRun: RawRun{Lblk: ondisk.Lblk(e.Block.Get()), Pblk: e.Leaf()}, SecondVisit: l.after}
	x.Len = uint32(c.end(len(c.path)-1) - uint64(x.Lblk))
	return x, nil
}

// end returns the block before which what the current entry of level i maps
// ends.
func (c *ExtentCursor) end(i int) uint64 {
	for ; i >= 0; i-- {
		if l := &c.path[i]; l.cur+1 < l.entries() {
			return uint64(endian.View[endian.LE32](l.slot(l.cur + 1)).Get())
		}
	}
	return c.r.geo.blocksOf(max(c.r.Size(c.raw), 0))
}

func (c *ExtentCursor) move(m Move) error {
	l := c.at()
	n := l.entries()
	more, before := l.cur+1 < n, l.cur > 0
	up := len(c.path) > 1
	switch m {
	case MoveNext, MoveNextLeaf:
		switch {
		case !c.leaf() && !l.after && l.cur >= 0:
			l.after = true
			return c.down(false)
		case more || !up:
			m = MoveNextSib
		default:
			m = MoveUp
		}
	case MovePrev, MovePrevLeaf:
		switch {
		case !c.leaf() && l.after:
			return c.down(true)
		case before || !up:
			m = MovePrevSib
		default:
			c.path = c.path[:len(c.path)-1]
			c.at().after = false
			return nil
		}
	case MoveLastLeaf:
		m = MoveLastSib
		if !c.leaf() {
			if l.cur != n-1 {
				l.cur = n - 1
			}
			l.after = true
			return c.down(true)
		}
	}
	switch m {
	case MoveRoot:
		c.path = c.path[:1]
		return c.set(0, false)
	case MoveFirstSib:
		return c.set(0, false)
	case MoveLastSib:
		return c.set(n-1, false)
	case MoveNextSib:
		return c.set(l.cur+1, false)
	case MovePrevSib:
		return c.set(l.cur-1, !c.leaf())
	case MoveUp:
		if !up {
			return ErrNoExtent
		}
		c.path = c.path[:len(c.path)-1]
	case MoveDown:
		return c.down(false)
	}
	return nil
}

func (c *ExtentCursor) set(i int, after bool) error {
	l := c.at()
	if i < 0 || i >= l.entries() {
		return ErrNoExtent
	}
	l.cur, l.after = i, after
	return nil
}

// down goes to the first or the last entry of the node below.
func (c *ExtentCursor) down(last bool) error {
	l := c.at()
	if c.leaf() || l.cur < 0 {
		return ErrNoExtent
	}
	blk := endian.View[ondisk.ExtentIdx](l.slot(l.cur)).Leaf()
	b, err := c.r.Block(blk)
	if err != nil {
		return err
	}
	h, err := ondisk.ExtentNodeHeader(b)
	if err == nil && int(h.Depth.Get()) != c.depth-len(c.path) {
		err = ondisk.Corrupt("extent header", 6, "depth %d, should be %d", h.Depth.Get(), c.depth-len(c.path))
	}
	if err == nil && c.r.geo.hasCsum && !c.r.o.IgnoreCsum {
		err = ondisk.VerifyExtentNode(b, c.r.InodeSeed(c.ino, c.raw))
	}
	if err != nil {
		return ondisk.At(err, c.ino, blk)
	}
	n := cursorLevel{node: slices.Clone(b), blk: blk}
	if n.entries() == 0 {
		n.cur = -1
	} else if last {
		n.cur = n.entries() - 1
		n.after = c.depth > len(c.path)
	}
	c.path = append(c.path, n)
	return nil
}

// Goto moves to the entry, at a level counted from the leaves up, that block
// lblk is in. It fails with ErrNoExtent, the cursor being at the entry before.
func (c *ExtentCursor) Goto(lblk ondisk.Lblk, up int) (CursorExtent, error) {
	if up > c.depth {
		return CursorExtent{}, fmt.Errorf("the tree has %d levels: %w", c.depth+1, syscall.EINVAL)
	}
	c.path = c.path[:1]
	for {
		l := c.at()
		l.cur, l.after = -1, false
		for i := range l.entries() {
			if endian.View[endian.LE32](l.slot(i)).Get() <= uint32(lblk) {
				l.cur = i
			}
		}
		if l.cur < 0 && l.entries() > 0 {
			l.cur = 0
		}
		if c.Level() == c.depth-up {
			break
		}
		if err := c.down(false); err != nil {
			return CursorExtent{}, err
		}
	}
	x, err := c.current()
	if err == nil && (lblk < x.Lblk || uint64(lblk) >= uint64(x.Lblk)+uint64(x.Len)) {
		err = ErrNoExtent
	}
	return x, err
}

// write brings the node of level i to the device.
func (c *ExtentCursor) write(i int) error {
	l := &c.path[i]
	if l.blk == 0 {
		return c.r.WriteInode(c.ino, c.raw, true)
	}
	if c.r.geo.hasCsum {
		ondisk.SealExtentNode(l.node, c.r.InodeSeed(c.ino, c.raw))
	}
	return c.r.WriteBlock(l.blk, l.node)
}

// encode returns an entry for the node that the cursor is in.
func (c *ExtentCursor) encode(x RawRun) ([]byte, error) {
	b := make([]byte, ondisk.ExtentEntry)
	if !c.leaf() {
		endian.View[ondisk.ExtentIdx](b).Set(x.Lblk, x.Pblk)
		return b, nil
	}
	most := uint32(ondisk.MaxExtentLen)
	if x.Unwritten {
		most = ondisk.MaxUnwrittenLen
	}
	if x.Len == 0 || x.Len > most {
		return nil, fmt.Errorf("%d blocks: an extent has 1 to %d: %w", x.Len, most, syscall.EINVAL)
	}
	endian.View[ondisk.Extent](b).Set(x.Lblk, x.Pblk, x.Len, x.Unwritten)
	return b, nil
}

// Replace makes the current entry x.
func (c *ExtentCursor) Replace(x RawRun) error {
	l := c.at()
	if l.cur < 0 || l.cur >= l.entries() {
		return ErrNoExtent
	}
	b, err := c.encode(x)
	if err != nil {
		return err
	}
	copy(l.slot(l.cur), b)
	return c.write(c.Level())
}

// Insert adds x before the current entry, or after it, and moves to it. A full
// node is split first.
func (c *ExtentCursor) Insert(x RawRun, after bool) error {
	b, err := c.encode(x)
	if err != nil {
		return err
	}
	if _, n, most := c.Node(); n >= most {
		if err := c.Split(); err != nil {
			return err
		}
	}
	l := c.at()
	n := l.entries()
	i := max(l.cur, 0)
	if after && l.cur >= 0 {
		i++
	}
	copy(l.node[ondisk.ExtentEntry*(i+2):ondisk.ExtentEntry*(n+2)], l.node[ondisk.ExtentEntry*(i+1):ondisk.ExtentEntry*(n+1)])
	copy(l.slot(i), b)
	endian.View[ondisk.ExtentHeader](l.node).Entries.Set(uint16(n + 1))
	l.cur, l.after = i, false
	return c.write(c.Level())
}

// Delete removes the current entry; the next one becomes the current one. A
// node that has none left is freed with its entry above.
func (c *ExtentCursor) Delete() error {
	l := c.at()
	n := l.entries()
	if l.cur < 0 || l.cur >= n {
		return ErrNoExtent
	}
	copy(l.node[ondisk.ExtentEntry*(l.cur+1):], l.node[ondisk.ExtentEntry*(l.cur+2):ondisk.ExtentEntry*(n+1)])
	endian.View[ondisk.ExtentHeader](l.node).Entries.Set(uint16(n - 1))
	l.cur = min(l.cur, n-2)
	switch {
	case n > 1:
		return c.write(c.Level())
	case len(c.path) == 1:
		ondisk.InitExtentNode(l.node, 0)
		c.depth = 0
		return c.write(0)
	}
	c.path = c.path[:len(c.path)-1]
	c.addBlocks(-1)
	return errors.Join(c.r.FreeBlock(l.blk), c.r.WriteSuper(), c.Delete())
}

// addBlocks adds n blocks to i_blocks.
func (c *ExtentCursor) addBlocks(n int64) { c.r.addBlocks(c.raw, n) }

// addBlocks adds n blocks, of clusters where there are any, to i_blocks.
func (r *Raw) addBlocks(raw ondisk.RawInode, n int64) {
	n *= int64(r.geo.clusterRatio)
	if r.geo.hasHugeFile && raw.Base().Flags.Get()&ondisk.FlagHugeFile != 0 {
		raw.SetBlocks(uint64(max(0, int64(raw.Blocks(true))+n)))
		return
	}
	raw.SetBlocks(uint64(max(0, int64(raw.Blocks(r.geo.hasHugeFile))+n<<(r.geo.blockBits-9))))
}

// Split moves the later half of the current node's entries to a node of its
// own, next to it; those of the root move to a node below it, which makes the
// tree deeper. The cursor stays at its entry. It fails with ENOSPC.
func (c *ExtentCursor) Split() error {
	l := c.at()
	if l.blk == 0 {
		return c.growRoot()
	}
	parent := &c.path[len(c.path)-2]
	if h := endian.View[ondisk.ExtentHeader](parent.node); h.Entries.Get() >= h.Max.Get() {
		here := *l
		c.path = c.path[:len(c.path)-1]
		if err := c.Split(); err != nil {
			return err
		}
		c.path = append(c.path, here)
	}
	n := c.at().entries()
	if n < 2 {
		return fmt.Errorf("a node of %d entries cannot be split: %w", n, syscall.EINVAL)
	}
	return c.splitNode(n / 2)
}

// splitNode moves the entries from keep on to a new node.
func (c *ExtentCursor) splitNode(keep int) error {
	l := c.at()
	n := l.entries()
	blk, err := c.r.AllocBlock(l.blk)
	if err != nil {
		return err
	}
	c.addBlocks(1)
	node := make([]byte, c.r.geo.blockSize)
	ondisk.InitExtentNode(node, int(endian.View[ondisk.ExtentHeader](l.node).Depth.Get()))
	endian.View[ondisk.ExtentHeader](node).Max.Set(endian.View[ondisk.ExtentHeader](l.node).Max.Get())
	copy(node[ondisk.ExtentEntry:], l.node[ondisk.ExtentEntry*(keep+1):ondisk.ExtentEntry*(n+1)])
	endian.View[ondisk.ExtentHeader](node).Entries.Set(uint16(n - keep))
	first := ondisk.Lblk(endian.View[endian.LE32](l.slot(keep)).Get())
	endian.View[ondisk.ExtentHeader](l.node).Entries.Set(uint16(keep))
	clear(l.node[ondisk.ExtentEntry*(keep+1) : ondisk.ExtentEntry*(n+1)])

	old := *l
	split := cursorLevel{node: node, blk: blk, cur: l.cur - keep, after: l.after}
	i := len(c.path) - 1
	err = c.write(i)
	c.path[i] = split
	err = errors.Join(err, c.write(i))
	c.path = c.path[:i]
	err = errors.Join(err, c.Insert(RawRun{Lblk: first, Pblk: blk}, true), c.r.WriteInode(c.ino, c.raw, true), c.r.WriteSuper())
	if old.cur < keep { // the entry is in the part that stayed
		c.at().cur--
		c.path = append(c.path, old)
	} else {
		c.path = append(c.path, split)
	}
	return err
}

// growRoot moves the entries of the root to a new node, the only one below it.
func (c *ExtentCursor) growRoot() error {
	l := c.at()
	if c.depth >= ondisk.MaxExtentDepth {
		return fmt.Errorf("the tree is as deep as it gets: %w", syscall.EFBIG)
	}
	goal := c.r.geo.groupFirst(c.r.GroupOfInode(c.ino))
	blk, err := c.r.AllocBlock(goal)
	if err != nil {
		return err
	}
	c.addBlocks(1)
	n := l.entries()
	node := make([]byte, c.r.geo.blockSize)
	ondisk.InitExtentNode(node, c.depth)
	copy(node[ondisk.ExtentEntry:], l.node[ondisk.ExtentEntry:ondisk.ExtentEntry*(n+1)])
	endian.View[ondisk.ExtentHeader](node).Entries.Set(uint16(n))
	first := ondisk.Lblk(0)
	if n > 0 {
		first = ondisk.Lblk(endian.View[endian.LE32](l.slot(0)).Get())
	}
	c.depth++
	ondisk.InitExtentNode(l.node, c.depth)
	clear(l.node[ondisk.ExtentEntry:])
	below := cursorLevel{node: node, blk: blk, cur: l.cur, after: l.after}
	l.cur, l.after = 0, false
	endian.View[ondisk.ExtentIdx](l.slot(0)).Set(first, blk)
	endian.View[ondisk.ExtentHeader](l.node).Entries.Set(1)
	c.path = append([]cursorLevel{c.path[0], below}, c.path[1:]...)
	return errors.Join(c.write(1), c.write(0), c.r.WriteSuper())
}

// FixParents makes the entries that lead to the current node start where it
// starts, as far up as it is the first one.
func (c *ExtentCursor) FixParents() error {
	l := c.at()
	if l.entries() == 0 {
		return ErrNoExtent
	}
	first := endian.View[endian.LE32](l.slot(0)).Get()
	for i := len(c.path) - 2; i >= 0; i-- {
		p := &c.path[i]
		b := endian.View[endian.LE32](p.slot(p.cur))
		if b.Get() == first {
			break
		}
		b.Set(first)
		if err := c.write(i); err != nil {
			return err
		}
		if p.cur > 0 {
			break
		}
	}
	return nil
}
