package fsck_test

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

// broken is a device of which some blocks cannot be read.
type broken struct {
	blockdev.Device
	bs  int64
	bad map[ondisk.Fsblk]bool
}

func (d *broken) ReadAt(p []byte, off int64) (int, error) {
	for b := off / d.bs; b*d.bs < off+int64(len(p)); b++ {
		if d.bad[ondisk.Fsblk(b)] {
			return 0, syscall.EIO
		}
	}
	return d.Device.ReadAt(p, off)
}

// faults are codes for which it takes blocks that cannot be read.
var faults = []struct {
	name string
	base string
	code fsck.Code
	edit func(e *edit) []ondisk.Fsblk // damages the image, and names the blocks
}{
	{"inode table", "ext4", fsck.P1ScanError, func(e *edit) []ondisk.Fsblk { return []ondisk.Fsblk{e.desc(1).InodeTable()} }},
	{"attribute block", "ext4", fsck.P1ReadEABlock, func(e *edit) []ondisk.Fsblk { return []ondisk.Fsblk{e.raw(e.ino("/attr")).FileACL()} }},
	{"indirect block", "ext3", fsck.P1BlockIterate, func(e *edit) []ondisk.Fsblk {
		var b ondisk.Fsblk
		e.pointers("/frag", func(p []endian.LE32) { b = ondisk.Fsblk(p[12].Get()) })
		return []ondisk.Fsblk{b}
	}},
	{"directory block", "ext4", fsck.P2ReadDirblock, func(e *edit) []ondisk.Fsblk { return []ondisk.Fsblk{e.bmap(e.ino("/dir"), 0)} }},
	{"bitmap that is to be placed anew", "ext4", fsck.P1RelocReadErr, func(e *edit) []ondisk.Fsblk {
		e.group(3, func(d ondisk.Desc) { d.SetBlockBitmap(e.desc(2).BlockBitmap()) })
		for g := 1; g < 4; g++ {
			clear(e.b[1024*(1+2048*g):][:1024])
		}
		return []ondisk.Fsblk{e.desc(2).BlockBitmap()}
	}},
}

// TestFaults checks file systems on devices of which some blocks cannot be read: the
// check ends, and once they can be read again another one makes good what is left.
func TestFaults(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			e := makeBase(t, recipeBases[f.base]).edit(t)
			bad := map[ondisk.Fsblk]bool{}
			for _, b := range f.edit(e) {
				bad[b] = true
			}
			mem := memOf(t, e.b)
			run := func(dev blockdev.Device, mode fsck.Mode) (*fsck.Result, error) {
				return fsck.Check(context.Background(), dev, fsck.Options{Mode: mode, Force: true})
			}
			dev := &broken{mem, int64(e.bs), bad}
			if res, _ := run(blockdev.ReadOnly(dev), fsck.ModeNo); res.Found[f.code] == 0 {
				if res, _ := run(&broken{mem.Clone(), int64(e.bs), bad}, fsck.ModeYes); res.Found[f.code] == 0 {
					t.Errorf("%#06x is not found: %s", uint32(f.code), f.code.Meaning())
				}
			}
			if _, err := run(dev, fsck.ModeYes); err != nil {
				t.Logf("ends with %v", err)
			}
			if _, err := run(mem, fsck.ModeYes); err != nil {
				t.Fatal(err)
			}
			if res, err := run(mem, fsck.ModeYes); err != nil || res.Fixed || res.Left {
				t.Errorf("not clean once it could be read: %v, %v", err, res.Found)
			}
		})
	}
}

// recipesFull are of file systems that have no room for a repair: it is made as
// far as it can be. Once a file is gone that took the room, another check makes
// good what is left.
var recipesFull = []recipe{
	{name: "full, shared blocks", base: "full", codes: []fsck.Code{fsck.P1DCloneError, fsck.P1DDelete}, edit: func(e *edit) {
		e.also("/file", e.bmap(e.ino("/other"), 1))
	}},
	{name: "full, hole in a directory", base: "full3", differs: "it drops the index before it sees that there is no room", codes: []fsck.Code{fsck.P2AllocDirblock}, edit: func(e *edit) {
		b := e.bmap(e.ino("/big"), 2)
		e.pointers("/big", func(p []endian.LE32) { p[2].Set(0) })
		e.pointers("/empty", func(p []endian.LE32) { setPtr(&p[0], b) })
		e.file("/empty", func(r ondisk.RawInode) { r.SetSize(1024); r.SetBlocks(2) })
		e.file("/big", func(r ondisk.RawInode) { r.SetBlocks(r.Blocks(false) - 2) })
	}},
	{name: "full, lost+found", base: "full3", differs: "it takes the last link from the file, which the next check would delete", codes: []fsck.Code{fsck.P3ExpandLF, fsck.P3CantExpandLF}, edit: func(e *edit) {
		e.fillDir("/lost+found", 12)
		noName(e, "/file")
	}},
	{name: "full, no lost+found", base: "full3", codes: []fsck.Code{fsck.P3LFNoSpace, fsck.P3NoSpaceToRecover}, edit: func(e *edit) {
		e.name("/lost+found", func(d []byte) { d[8] = 'L' })
		noName(e, "/file")
	}},
	{name: "full, quota", base: "fullquota", differs: "it writes over the old file", codes: []fsck.Code{0x060006}, edit: func(e *edit) {
		e.file("/file", func(r ondisk.RawInode) { r.SetUID(77) })
	}},
	{name: "full, orphan file", base: "fullorphans", differs: "it frees the old blocks first", codes: []fsck.Code{fsck.P6OrphanCreate}, edit: func(e *edit) {
		e.inode(ondisk.Ino(e.sb.OrphanFileInum.Get()), func(r ondisk.RawInode) { r.SetSize(r.Size(false) - 100) })
	}},
	{name: "full, bitmap outside", base: "fullnoflex", noBackups: true, codes: []fsck.Code{fsck.P1RelocNoSpace}, edit: func(e *edit) {
		e.also("/file", e.desc(2).BlockBitmap())
		e.group(2, func(d ondisk.Desc) { d.SetBlockBitmap(30) })
	}},
	{name: "full, large directory without an index", base: "full3", codes: []fsck.Code{fsck.P3ARehashErr}, edit: func(e *edit) {
		e.fillDir("/lost+found", 12)
		e.name("/lost+found", func(d []byte) { d[8] = 'L' })
	}},
	{name: "full, resize inode", base: "full", differs: "it frees the old block first", codes: []fsck.Code{fsck.P1ResizeInodeCreate}, edit: func(e *edit) {
		e.inode(ondisk.ResizeIno, func(r ondisk.RawInode) { clear(r.Base().Block[:]) })
	}},
}

// also has a file of one extent claim a block of others.
func (e *edit) also(path string, b ondisk.Fsblk) {
	e.extents(path, func(h *ondisk.ExtentHeader, x []ondisk.Extent) {
		h.Entries.Set(2)
		x[1].Set(ondisk.Lblk(x[0].Len()), b, 1, false)
	})
	e.file(path, func(r ondisk.RawInode) {
		r.SetSize(r.Size(false) + 1024)
		r.SetBlocks(r.Blocks(true) + 2)
	})
}

// fillDir fills n blocks of a directory with second names of a file.
func (e *edit) fillDir(path string, n uint32) {
	links := 0
	for l := range n {
		e.dir(path, l, func(b []byte) {
			at := 0
			if l == 0 {
				at = 24
			}
			for i := 0; at < e.bs; i++ {
				k := 40
				if e.bs-at < 2*k {
					k = e.bs - at
				}
				name := strings.Repeat(string(rune('a'+i)), k-ondisk.DirentHeaderSize-1) + string(rune('a'+l))
				ondisk.PutDirent(b, at, k, e.bs, []byte(name), e.ino("/hard"), ondisk.FTReg)
				links++
				at += k
			}
			if l == 0 { // what follows ".."
				ondisk.SetRecLen(b, 12, 12, e.bs)
			}
		})
	}
	e.file("/hard", func(r ondisk.RawInode) { r.Base().LinksCount.Set(uint16(2 + links)) })
}
