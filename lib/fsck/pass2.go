package fsck

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// dirScan is a directory block, or a part of an inode that holds entries, while
// pass 2 goes through it.
type dirScan struct {
	ino    ondisk.Ino
	lblk   uint64
	b      []byte // the entries
	base   int    // offset of b as people are told it
	size   int    // of a block
	dot    int    // entries seen at the start of the directory, up to 2
	encd   int    // policy of the directory, 0 if it is not encrypted
	fold   bool   // names have to be valid
	folded bool   // names that differ in case alone are the same
	dx     *dxDir
	dup    bool
	dirty  bool
	inline bool
}

// pass2 checks the entries of all directories.
func (c *checker) pass2() {
	c.begin(P2Pass)
	c.sortDirBlocks()
	c.scanDirs()
	c.checkIndexes()
	if c.largeFiles && c.sb.FeatureROCompat.Get()&ondisk.ROCompatLargeFile == 0 && c.fix(P2FeatureLargeFiles, at(0)) {
		c.sb.FeatureROCompat.Set(c.sb.FeatureROCompat.Get() | ondisk.ROCompatLargeFile)
		c.setSuper()
	}
	if c.largeFiles && c.sb.RevLevel.Get() < ondisk.DynamicRev && c.fix(P1FSRevLevel, at(0)) {
		c.dynamicRev()
		c.setSuper()
	}
	if c.largeDirs && !c.hasLargeDir && c.fix(P2FeatureLargeDirs, at(0)) {
		c.sb.FeatureIncompat.Set(c.sb.FeatureIncompat.Get() | ondisk.IncompatLargeDir)
		c.setSuper()
	}
	if c.restart {
		c.abort(errRestart)
	}
}

// dirHole gives a directory a block where it has none.
func (c *checker) dirHole(d *dirBlock) bool {
	p := at(d.ino)
	p.Lblk = int64(d.lblk)
	if !c.fix(P2DirectoryHole, p) {
		return false
	}
	r, err := c.inode(d.ino)
	if err != nil {
		return false
	}
	runs, meta, _ := c.runs(r)
	blk, ok := ondisk.Fsblk(0), false
	if c.clusterBits > 0 {
		// The cluster may be there already, for blocks beside it.
		first := d.lblk &^ (c.clusterRatio - 1)
		for l := first; l < first+c.clusterRatio && !ok; l++ {
			if b := lookup(runs, l); b != 0 {
				blk, ok = b-ondisk.Fsblk(l-first)+ondisk.Fsblk(d.lblk-first), true
			}
		}
	}
	if !ok {
		if blk, ok = c.alloc(c.goalOf(d.ino), false); ok && c.clusterBits > 0 {
			blk += ondisk.Fsblk(d.lblk & (c.clusterRatio - 1))
		}
	}
	if !ok {
		c.tell(P2AllocDirblock, p)
		c.invalid = true
		return false
	}
	data := make([]byte, c.blockSize)
	if d.lblk == 0 {
		c.newDirBlock(data, d.ino, ondisk.RootIno)
	} else {
		ondisk.InitDirBlock(data, c.hasCsum)
	}
	if c.hasCsum {
		ondisk.SealDirBlock(data, ondisk.InodeSeed(c.seed, d.ino, r.Base().Generation.Get()))
	}
	c.write(blk, data)
	if !c.addMapping(d.ino, r, runs, meta, d.lblk, blk) {
		c.release(blk)
		c.tell(P2AllocDirblock, p)
		c.invalid = true
		return false
	}
	d.blk = blk
	return true
}

// newDirBlock makes data the first block of a directory.
func (c *checker) newDirBlock(data []byte, ino, parent ondisk.Ino) {
	ft := uint8(0)
	if c.hasFiletype {
		ft = ondisk.FTDir
	}
	n := c.blockSize
	clear(data)
	if c.hasCsum {
		ondisk.InitDirTail(data)
		n -= ondisk.DirTailSize
	}
	ondisk.PutDirent(data, 0, ondisk.DirentMin, c.blockSize, []byte("."), ino, ft)
	ondisk.PutDirent(data, ondisk.DirentMin, n-ondisk.DirentMin, c.blockSize, []byte(".."), parent, ft)
}

// addMapping maps block lblk of an inode to blk, in a map made anew.
func (c *checker) addMapping(ino ondisk.Ino, r ondisk.RawInode, runs []extent, meta []ondisk.Fsblk, lblk uint64, blk ondisk.Fsblk) bool {
	var out []extent
	put := func(e extent) {
		if k := len(out) - 1; k >= 0 && out[k].lblk+out[k].n == e.lblk && out[k].blk+ondisk.Fsblk(out[k].n) == e.blk && out[k].unwritten == e.unwritten {
			out[k].n += e.n
		} else {
			out = append(out, e)
		}
	}
	done := false
	for _, e := range runs {
		if !done && e.lblk > lblk {
			put(extent{lblk, blk, 1, false, false})
			done = true
		}
		put(e)
	}
	if !done {
		put(extent{lblk, blk, 1, false, false})
	}
	added, ok := c.storeMap(ino, r, out)
	if !ok {
		return false
	}
	size := int64(lblk+1) << c.blockBits
	if size > r.Size(c.hasLargeDir) {
		r.SetSize(size)
	}
	r.SetBlocks(c.countBlocks(r, out, len(added)))
	c.sync()
	c.writeInode(ino, r)
	for _, b := range meta {
		c.release(b)
	}
	return true
}

// hasTail tells whether a block of entries ends in a place for its checksum, which
// no record reaches into.
func hasTail(b []byte) bool {
	end := len(b) - ondisk.DirTailSize
	t := endian.View[ondisk.DirTail](b[end:])
	if t.Zero1.Get() != 0 || t.Len.Get() != ondisk.DirTailSize || t.Zero2[0] != 0 || t.FileType[0] != ondisk.FTDirCsum {
		return false
	}
	for off := 0; off < end; {
		n := ondisk.RecLen(binary.LittleEndian.Uint16(b[off+4:]), len(b))
		if n < ondisk.DirentMin || n%4 != 0 || n > len(b)-off {
			return true // it is damaged before it gets there
		}
		if off += n; off > end {
			return false
		}
	}
	return true
}

// dirBlock checks a block of a directory, the index of which is dx if it has one.
func (c *checker) dirBlock(d dirBlock, b []byte, dx *dxDir) {
	p := at(d.ino)
	p.Lblk = int64(d.lblk)
	s := &dirScan{ino: d.ino, lblk: d.lblk, b: b, size: c.blockSize, dot: 2, dx: dx}
	if d.lblk == 0 {
		s.dot = 0
	}
	c.dirTraits(s)
	leaf := true
	kind := c.dxBlock(s, d.blk)
	if kind != dxLeaf {
		leaf = false
	}
	seed, badCsum := uint32(0), false
	if c.hasCsum {
		seed = c.dirSeed(d.ino)
		err := ondisk.VerifyDirBlock(b, true, seed)
		badCsum = isCsum(err)
		if err != nil && !badCsum {
			badCsum = c.dirCsumBad(b, leaf, seed)
		}
	}
	tail := false
	if c.hasCsum && leaf {
		tail = hasTail(b)
		switch {
		case tail:
			s.b = b[:len(b)-ondisk.DirTailSize]
		case c.rehash[d.ino]:
			badCsum = false
		case c.fix(P2LeafMissingTail, p):
			c.rehash[d.ino] = true
			badCsum = false
		}
	} else if badCsum && !leaf {
		code := P2HtreeNodeCsum
		if kind == dxRoot {
			code = P2HtreeRootCsum
		}
		if c.fix(code, p) {
			c.clearIndex(d.ino)
			s.dx = nil
			s.dirty = true
		}
	}
	if s.dx != nil && kind != dxLeaf {
		c.parseNode(s, kind)
	}
	c.entries(s)
	c.lostDotDot(s)
	if s.dirty {
		if c.hasCsum && leaf && !tail {
			c.rehash[d.ino] = true
		}
		if c.hasCsum {
			ondisk.SealDirBlock(b, seed)
		}
		c.write(d.blk, b)
		c.changed = true
		return
	}
	if leaf && badCsum && tail && c.fix(P2LeafOnlyCsum, p) {
		c.changed = true
		ondisk.SealDirBlock(b, seed)
		c.write(d.blk, b)
	}
}

// isCsum tells whether err is about a checksum.
func isCsum(err error) bool {
	e, ok := err.(*ondisk.CorruptError)
	return ok && e.Csum
}

// dirCsumBad checks the checksum of a block that is damaged otherwise.
func (c *checker) dirCsumBad(b []byte, leaf bool, seed uint32) bool {
	if leaf && hasTail(b) {
		t := endian.View[ondisk.DirTail](b[len(b)-ondisk.DirTailSize:])
		return t.Checksum.Get() != ondisk.Crc32c(seed, b[:len(b)-ondisk.DirTailSize])
	}
	return !leaf
}

// dirSeed returns the seed for checksums of a directory's blocks.
func (c *checker) dirSeed(ino ondisk.Ino) uint32 {
	if c.lastSeedOf == ino && ino != 0 {
		return c.lastSeed
	}
	gen := uint32(0)
	if r, err := c.inode(ino); err == nil {
		gen = r.Base().Generation.Get()
	}
	c.lastSeedOf, c.lastSeed = ino, ondisk.InodeSeed(c.seed, ino, gen)
	return c.lastSeed
}

// dirTraits notes whether the directory of s is encrypted or casefolded.
func (c *checker) dirTraits(s *dirScan) {
	s.encd = c.enc.policy[s.ino]
	s.fold, s.folded = false, false
	if c.hasCasefold && s.encd == 0 {
		if r, err := c.inode(s.ino); err == nil {
			s.folded = r.Base().Flags.Get()&ondisk.FlagCasefold != 0
			s.fold = s.folded && (c.sb.EncodingFlags.Get()&1 != 0 || c.opts.CheckEncoding)
		}
	}
}

// inlineDir checks a directory whose entries lie in its inode.
func (c *checker) inlineDir(ino ondisk.Ino, r ondisk.RawInode) {
	b := r.Base()
	s := &dirScan{ino: ino, inline: true, dot: 2}
	c.dirTraits(s)
	parent := ondisk.Ino(endian.View[endian.LE32](b.Block[:]).Get())
	c.seen.add(uint64(ino), 1)
	c.setDotDot(ino, parent)
	p := at(0)
	p.Dir, p.Name, p.Ino = ino, "..", parent
	var code Code
	switch {
	case parent != ondisk.RootIno && parent < c.firstIno || uint32(parent) > c.inodes:
		code = P2BadIno
	case !c.restart && !c.inodeUsed.test(uint64(parent)):
		code = P2UnusedInode
	}
	if code != 0 && c.fix(code, p) {
		endian.View[endian.LE32](b.Block[:]).Set(0)
		s.dirty = true
		if d := c.dir(ino); d != nil && code == P2UnusedInode {
			d.dotdot = 0
		}
	} else if code != P2BadIno {
		c.seen.add(uint64(parent), 1)
	}
	area := func(x []byte, base int) {
		s.b, s.base, s.size = x, base, len(x)
		if len(x) >= ondisk.DirentMin {
			c.entries(s)
		}
	}
	c.inlineDirSize(s, r)
	area(b.Block[4:], 4)
	if a, used, ok := ondisk.InodeXattrs(r); ok && used && a.Check(ondisk.Ino(c.inodes)) == nil {
		if off, found := a.Find(ondisk.XattrSystemIndex, ondisk.XattrSystemData, false); found {
			if v := a.Value(off); len(v) > 0 {
				area(v, len(b.Block))
				if e := a.Entry(off); s.dirty && e.Hash.Get() != 0 {
					pad := make([]byte, ondisk.XattrPad(len(v)))
					copy(pad, v)
					e.Hash.Set(ondisk.XattrHash(a.Name(off), pad))
				}
			}
		}
	}
	if s.dirty {
		c.writeInode(ino, r)
	}
}

// inlineDirSize makes the part of an inline directory that lies among the
// attributes one that can be filled with entries.
func (c *checker) inlineDirSize(s *dirScan, r ondisk.RawInode) {
	a, used, ok := ondisk.InodeXattrs(r)
	if !ok || !used || a.Check(ondisk.Ino(c.inodes)) != nil {
		return
	}
	off, found := a.Find(ondisk.XattrSystemIndex, ondisk.XattrSystemData, false)
	if !found {
		return
	}
	e := a.Entry(off)
	n := int(e.ValueSize.Get())
	if n%4 == 0 && (n == 0 || n >= ondisk.DirentMin) {
		return
	}
	p := at(s.ino)
	p.Num = uint64(len(r.Base().Block) + n)
	if !c.fix(P2InlineDirSize, p) {
		return
	}
	want := n &^ 3
	if want < ondisk.DirentMin { // no entry fits
		want = 0
	}
	e.ValueSize.Set(uint32(want))
	if want == 0 {
		e.ValueOffs.Set(0)
	}
	if e.Hash.Get() != 0 {
		e.Hash.Set(ondisk.XattrHash(a.Name(off), a.Value(off)))
	}
	r.SetSize(int64(len(r.Base().Block) + want))
	s.dirty = true
}

// entries goes through the entries of s.
func (c *checker) entries(s *dirScan) {
	b := s.b
	c.names.reset(len(b) / ondisk.DirentMin)
	prev := -1
	for off := 0; off < len(b); {
		sound := false
		if len(b)-off >= ondisk.DirentHeaderSize {
			_, err := c.direntAt(s, off)
			sound = err == nil
		}
		if !sound {
			p := at(s.ino)
			p.Lblk, p.Off = int64(s.lblk), int64(off+s.base)
			if !c.fix(P2DirCorrupted, p) {
				return
			}
			off = c.salvage(s, off, prev)
			s.dirty = true
			continue
		}
		c.entry(s, off)
		prev = off
		off += c.recLen(s, off)
		s.dot++
	}
}

func (c *checker) recLen(s *dirScan, off int) int {
	return ondisk.RecLen(binary.LittleEndian.Uint16(s.b[off+4:]), max(s.size, c.dirSize(s)))
}

func (c *checker) dirSize(s *dirScan) int {
	if s.inline {
		return 1024
	}
	return c.blockSize
}

// direntAt returns the entry at off if it can be told from the next one.
func (c *checker) direntAt(s *dirScan, off int) (e ondisk.Direntry, err error) {
	p := s.b[off:]
	e.Ino = ondisk.Ino(binary.LittleEndian.Uint32(p))
	e.Off, e.RecLen, e.FileType = off, c.recLen(s, off), p[7]
	n := int(p[6])
	if e.RecLen < ondisk.DirentMin || e.RecLen%4 != 0 || e.RecLen > len(p) || ondisk.DirentSize(n) > e.RecLen {
		return e, errMap
	}
	e.Name = p[ondisk.DirentHeaderSize : ondisk.DirentHeaderSize+n]
	return e, nil
}

func (c *checker) setRecLen(s *dirScan, off, n int) {
	binary.LittleEndian.PutUint16(s.b[off+4:], ondisk.EncodeRecLen(n, max(s.size, c.dirSize(s))))
}

// salvage makes something of an entry that is none, and returns where to go on.
func (c *checker) salvage(s *dirScan, off, prev int) int {
	b := s.b
	left := len(b) - off
	rec, n := left, 0
	if left >= ondisk.DirentHeaderSize {
		rec, n = c.recLen(s, off), int(b[off+6])
	}
	switch {
	case left >= ondisk.DirentMin && rec == ondisk.DirentHeaderSize:
		// Nothing but a header: what follows it moves up.
		copy(b[off:], b[off+ondisk.DirentHeaderSize:])
		clear(b[len(b)-ondisk.DirentHeaderSize:])
		return off
	case rec > left && left > ondisk.DirentHeaderSize && n+ondisk.DirentHeaderSize <= left && left >= ondisk.DirentMin && left%4 == 0 &&
		n > 0 && binary.LittleEndian.Uint32(b[off:]) <= c.inodes && noZero(b[off+8:off+8+n]) && ondisk.DirentSize(n) <= left:
		c.setRecLen(s, off, left)
		return off
	case prev >= 0 && rec > 0 && rec%4 == 0 && rec <= left:
		c.setRecLen(s, prev, c.recLen(s, prev)+rec)
		return off + rec
	case prev >= 0:
		c.setRecLen(s, prev, c.recLen(s, prev)+left)
		return len(b)
	case left < ondisk.DirentMin:
		return len(b)
	}
	clear(b[off : off+ondisk.DirentHeaderSize])
	c.setRecLen(s, off, left)
	return off
}

func noZero(b []byte) bool {
	for _, x := range b {
		if x == 0 {
			return false
		}
	}
	return true
}

// entry checks the entry at off, which is well formed.
func (c *checker) entry(s *dirScan, off int) {
	b := s.b[off:]
	ino := ondisk.Ino(binary.LittleEndian.Uint32(b))
	place := func() Problem {
		p := at(ino)
		p.Dir, p.Name = s.ino, string(b[8:8+int(b[6])])
		return p
	}
	unlink := func() {
		binary.LittleEndian.PutUint32(b, 0)
		s.dirty = true
		if d := c.dir(s.ino); d != nil && s.dot == 1 {
			d.dotdot = 0
		}
	}
	switch s.dot {
	case 0:
		c.checkDot(s, off)
	case 1:
		if c.checkDotDot(s, off) {
			c.countEntry(ondisk.Ino(binary.LittleEndian.Uint32(b)))
			return
		}
	default:
		if ino == s.ino {
			if c.fix(P2LinkDot, place()) {
				unlink()
				return
			}
		}
	}
	ino = ondisk.Ino(binary.LittleEndian.Uint32(b))
	if ino == 0 {
		return
	}
	n := int(b[6])
	name := b[8 : 8+n]
	var code Code
	switch {
	case ino != ondisk.RootIno && ino < c.firstIno || uint32(ino) > c.inodes:
		code = P2BadIno
	case c.inodeBB.test(uint64(ino)):
		code = P2BBInode
	case s.dot > 1 && string(name) == ".":
		code = P2DupDot
	case s.dot > 1 && string(name) == "..":
		code = P2DupDotDot
	case s.dot > 1 && ino == ondisk.RootIno:
		code = P2LinkRoot
	case s.dot > 1 && n == 0:
		code = P2NullName
	}
	if code != 0 {
		if c.fix(code, place()) {
			unlink()
			return
		}
		if code == P2BadIno {
			return
		}
	}
	if c.inodeBad.test(uint64(ino)) && c.badInode(s.ino, ino, string(name)) {
		unlink()
		return
	}
	c.uninitEntry(ino, place)
	if !c.restart && !c.inodeUsed.test(uint64(ino)) {
		if c.fix(P2UnusedInode, place()) {
			unlink()
			return
		}
	}
	if s.dot > 1 && c.xattrInodeEntry(ino) && c.fix(P2EAInodeRef, place()) {
		unlink()
		return
	}
	if s.dot > 1 && s.encd != 0 {
		if code := c.encryptedEntry(s, ino, n); code != 0 && c.fix(code, place()) {
			unlink()
			return
		}
	}
	if s.encd == 0 {
		c.checkName(s, off, name, place)
	}
	c.checkFiletype(s, off, ino, place)
	if s.dx != nil {
		c.dxName(s, name, off)
	}
	if s.dot > 1 && c.inodeDir.test(uint64(ino)) {
		if c.report != nil {
			c.report.kids = append(c.report.kids, ino)
		} else if d := c.dir(ino); d != nil {
			if d.parent != 0 {
				if c.fix(P2LinkDir, place()) {
					unlink()
					return
				}
			} else {
				d.parent = s.ino
			}
		}
	}
	if !s.dup {
		if c.names.add(s.b, off+ondisk.DirentHeaderSize, n, s.folded) {
			p := place()
			c.tell(P2ReportDupDirent, p)
			c.rehash[s.ino] = true
			s.dup = true
		}
	}
	c.countEntry(ino)
}

// setDotDot notes what ".." of a directory leads to.
func (c *checker) setDotDot(dir, parent ondisk.Ino) {
	if c.report != nil {
		c.report.dots = append(c.report.dots, dotDot{dir, parent})
	} else if d := c.dir(dir); d != nil {
		d.dotdot = parent
	}
}

// asciiLower returns a name with its ASCII letters in lower case. How others fold
// takes the tables of Unicode: such names count as the same only if they are.
func asciiLower(name []byte) []byte {
	out := append([]byte(nil), name...)
	for i, x := range out {
		if 'A' <= x && x <= 'Z' {
			out[i] += 'a' - 'A'
		}
	}
	return out
}

// countEntry counts an entry that stays.
func (c *checker) countEntry(ino ondisk.Ino) {
	if uint32(ino) > c.inodes {
		return
	}
	if c.report != nil {
		c.report.seen = append(c.report.seen, ino)
		return
	}
	if c.seen.get(uint64(ino)) > 0 && c.inodeReg.test(uint64(ino)) {
		c.res.Links++
	}
	c.seen.add(uint64(ino), 1)
}

// uninitEntry looks whether an entry leads into what a descriptor says was never
// used; then pass 1 has to look there.
func (c *checker) uninitEntry(ino ondisk.Ino, place func() Problem) {
	if !c.hasGDTCsum {
		return
	}
	g := ondisk.Group(uint32(ino-1) / c.inodesPerGroup)
	d := c.desc(g)
	i := uint32(ino-1) % c.inodesPerGroup
	switch {
	case d.HasFlag(ondisk.BGInodeUninit):
		p := place()
		p.Group = int64(g)
		if c.fix(P2InoInUninit, p) {
			d.SetFlags(0, ondisk.BGInodeUninit)
			d.SetItableUnused(0)
			c.sealDesc(g)
			c.setSuper()
			c.restart = true
		}
	case i >= c.inodesPerGroup-min(c.inodesPerGroup, d.ItableUnused()):
		p := place()
		p.Group = int64(g)
		if c.fix(P2InoInUnused, p) {
			d.SetItableUnused(0)
			c.sealDesc(g)
			c.setSuper()
			c.restart = true
		}
	}
}

// xattrInodeEntry tells whether an inode is there to hold an attribute's value.
func (c *checker) xattrInodeEntry(ino ondisk.Ino) bool { return c.xattrs.inodes[ino] > 0 }

// encryptedEntry checks an entry of an encrypted directory.
func (c *checker) encryptedEntry(s *dirScan, ino ondisk.Ino, n int) Code {
	if n < 16 {
		return P2BadEncryptedName
	}
	if s.encd < 0 {
		return 0
	}
	id, ok := c.enc.policy[ino]
	if !ok {
		if c.inodeDir.test(uint64(ino)) || c.inodeReg.test(uint64(ino)) {
			return P2Unencrypted
		}
		if r, err := c.inode(ino); err == nil && r.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeLnk {
			return P2Unencrypted
		}
		return 0
	}
	if id != s.encd { // also one of a version to come, in a directory of one that is known
		return P2PolicyMismatch
	}
	return 0
}

// checkName looks for bytes that no name may have.
func (c *checker) checkName(s *dirScan, _ int, name []byte, place func() Problem) {
	bad := false
	for _, x := range name {
		bad = bad || x == '/' || x == 0
	}
	if bad && c.fix(P2BadName, place()) {
		for i, x := range name {
			if x == '/' || x == 0 {
				name[i] = '.'
			}
		}
		s.dirty = true
	}
	if s.fold && s.dot > 1 && !utf8.Valid(name) && c.fix(P2BadCasefoldName, place()) {
		for i := 0; i < len(name); {
			r, n := utf8.DecodeRune(name[i:])
			if r == utf8.RuneError && n == 1 {
				name[i] = '.'
			}
			i += n
		}
		s.dirty = true
	}
}

// checkFiletype checks the type of an entry.
func (c *checker) checkFiletype(s *dirScan, off int, ino ondisk.Ino, place func() Problem) {
	b := s.b[off:]
	have := b[7]
	if !c.hasFiletype {
		if have != 0 && c.fix(P2ClearFiletype, place()) {
			b[7] = 0
			s.dirty = true
		}
		return
	}
	want := uint8(0)
	switch {
	case c.inodeDir.test(uint64(ino)):
		want = ondisk.FTDir
	case c.inodeReg.test(uint64(ino)):
		want = ondisk.FTReg
	default:
		if r, err := c.inode(ino); err == nil {
			want = ondisk.FileType(r.Base().Mode.Get())
		}
	}
	if have == want {
		return
	}
	code := P2BadFiletype
	if have == 0 {
		code = P2SetFiletype
	}
	p := place()
	p.Num, p.Want, p.Vals = uint64(have), uint64(want), true
	if c.fix(code, p) {
		b[7] = want
		s.dirty = true
	}
}
