package e2p

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

var typeNames = map[uint16]string{
	ondisk.ModeDir: "directory", ondisk.ModeReg: "regular", ondisk.ModeLnk: "symlink", ondisk.ModeBlk: "block special",
	ondisk.ModeChr: "character special", ondisk.ModeFIFO: "FIFO", ondisk.ModeSock: "socket",
}

// TypeName returns the type of file that a mode has, in words.
func TypeName(mode uint16) string {
	if n, ok := typeNames[mode&ondisk.ModeFmt]; ok {
		return n
	}
	return "bad type"
}

// ListInode writes what inode ino says of itself, as the stat of debugfs does,
// without its blocks. prefix begins each line but that of the checksum, which it
// has if csum says that inodes have one. attrs writes what comes before that, the
// attributes; it may be nil.
func ListInode(w io.Writer, prefix string, ino ondisk.Ino, raw ondisk.RawInode, csum bool, loc *time.Location, attrs func(w io.Writer)) error {
	l, b, extra := bufio.NewWriter(w), raw.Base(), raw.ExtraIsize()
	line := func(format string, args ...any) { fmt.Fprintf(l, prefix+format+"\n", args...) }
	mode := b.Mode.Get()
	line("Inode: %d   Type: %s    %sMode:  0%03o   Flags: 0x%x", ino, TypeName(mode), prefix, mode&07777, b.Flags.Get())
	version := fmt.Sprintf("0x%08x", b.VersionLo.Get())
	if extra >= 28 {
		version = fmt.Sprintf("0x%08x:%08x", uint32(raw.Version()>>32), b.VersionLo.Get())
	}
	line("Generation: %d    Version: %s", b.Generation.Get(), version)
	project := ""
	if extra >= 32 {
		project = fmt.Sprintf("   Project: %5d", int32(raw.Projid()))
	}
	size := uint64(b.SizeLo.Get())
	if t := mode & ondisk.ModeFmt; t == ondisk.ModeReg || t == ondisk.ModeDir {
		size |= uint64(b.SizeHi.Get()) << 32
	}
	line("User: %5d   Group: %5d%s   Size: %d", int32(raw.UID()), int32(raw.GID()), project, size)
	line("File ACL: %d", raw.FileACL())
	line("Links: %d   Blockcount: %d", b.LinksCount.Get(), raw.Blocks(true))
	line("Fragment:  Address: %d    Number: 0    Size: 0", b.ObsoFaddr.Get())
	inodeTimes(line, raw, loc)
	if len(raw) > ondisk.GoodOldInodeSz {
		line("Size of extra inode fields: %d", endian.View[endian.LE16](raw[ondisk.GoodOldInodeSz:]).Get())
	}
	if attrs != nil {
		attrs(l)
	}
	if csum {
		sum := uint32(b.ChecksumLo.Get())
		if extra >= 4 {
			sum |= uint32(endian.View[ondisk.InodeExtra](raw[ondisk.GoodOldInodeSz:]).ChecksumHi.Get()) << 16
		}
		fmt.Fprintf(l, "Inode checksum: 0x%08x\n", sum)
	}
	switch t := mode & ondisk.ModeFmt; {
	case t == ondisk.ModeLnk && size < ondisk.MaxSymlinkFast && b.Flags.Get()&(ondisk.FlagExtents|ondisk.FlagInlineData) == 0:
		line("Fast link dest: \"%s\"", Text(b.Block[:size]))
	case t == ondisk.ModeBlk || t == ondisk.ModeChr:
		block := endian.Views[endian.LE32](b.Block[:], 2)
		major, minor, style := block[0].Get()>>8&255, block[0].Get()&255, prefix
		if block[0].Get() == 0 {
			n := block[1].Get()
			major, minor, style = n&0xfff00>>8, n&0xff|n>>12&0xfff00, "(New-style) "
		}
		fmt.Fprintf(l, "%sDevice major/minor number: %02d:%02d (hex %02x:%02x)\n", style, major, minor, major, minor)
	}
	return l.Flush()
}

// inodeTimes writes the times of an inode, to the nanosecond where it has them.
func inodeTimes(line func(string, ...any), raw ondisk.RawInode, loc *time.Location) {
	b, extra := raw.Base(), raw.ExtraIsize()
	var x ondisk.InodeExtra
	if len(raw) > ondisk.GoodOldInodeSz {
		copy(endian.Bytes(&x), raw[ondisk.GoodOldInodeSz:])
	}
	for _, t := range []struct {
		name      string
		lo, extra uint32
		end       int // of the field that has the rest
		sec       int64
	}{
		{"ctime", b.Ctime.Get(), x.CtimeExtra.Get(), 8, raw.Ctime().Sec},
		{"atime", b.Atime.Get(), x.AtimeExtra.Get(), 16, raw.Atime().Sec},
		{"mtime", b.Mtime.Get(), x.MtimeExtra.Get(), 12, raw.Mtime().Sec},
	} {
		if extra >= t.end {
			line(" %s: 0x%08x:%08x -- %s", t.name, t.lo, t.extra, Ctime(t.sec, loc))
		} else {
			line("%s: 0x%08x -- %s", t.name, t.lo, Ctime(t.sec, loc))
		}
	}
	if t, ok := raw.Crtime(); ok && extra >= 24 {
		line("crtime: 0x%08x:%08x -- %s", x.Crtime.Get(), x.CrtimeExt.Get(), Ctime(t.Sec, loc))
	}
	if d := b.Dtime.Get(); d != 0 {
		if extra >= 8 { // the epoch is that of ctime
			sec := int64(int32(d)) + int64(x.CtimeExtra.Get()&3)<<32
			line(" dtime: 0x%08x:(%08x) -- %s", d, x.CtimeExtra.Get(), Ctime(sec, loc))
		} else {
			line("dtime: 0x%08x -- %s", d, Ctime(int64(int32(d)), loc))
		}
	}
}
