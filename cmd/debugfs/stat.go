package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupInodes,
		request{names: []string{"show_inode_info", "stat"}, args: "file", help: "show an inode", needs: needFS, min: 1, max: 1, run: stat},
		request{names: []string{"imap"}, args: "file", help: "show where an inode lies", needs: needFS, min: 1, max: 1, run: imap},
	)
}

// stat shows an inode that does not match its checksum too, and fails then.
func stat(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	ino, err := s.inode(a.word(0))
	if err != nil {
		return err
	}
	raw, err := r.Inode(ino)
	if err != nil {
		return err
	}
	if s.json {
		err = s.statJSON(r, ino, raw)
	} else {
		err = s.showInode(r, ino, raw)
	}
	if e := r.VerifyInode(ino, raw); e != nil {
		err = e
	}
	return err
}

// typeNames are the types of files in words.
var typeNames = map[uint16]string{
	ondisk.ModeDir: "directory", ondisk.ModeReg: "regular", ondisk.ModeLnk: "symlink", ondisk.ModeBlk: "block special",
	ondisk.ModeChr: "character special", ondisk.ModeFIFO: "FIFO", ondisk.ModeSock: "socket",
}

func typeName(mode uint16) string {
	if n, ok := typeNames[mode&ondisk.ModeFmt]; ok {
		return n
	}
	return "bad type"
}

// ctime prints a time as ctime(3) does.
func ctime(t int64) string { return time.Unix(t, 0).Format(time.ANSIC) }

func (s *session) showInode(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	w, b := s.out, raw.Base()
	mode, extra := b.Mode.Get(), raw.ExtraIsize()
	fmt.Fprintf(w, "Inode: %d   Type: %s    Mode:  %04o   Flags: 0x%x\n", ino, typeName(mode), mode&07777, b.Flags.Get())
	if extra >= 24 {
		v := raw.Version()
		if extra < 28 {
			v &= 1<<32 - 1
		}
		fmt.Fprintf(w, "Generation: %d    Version: 0x%08x:%08x\n", b.Generation.Get(), uint32(v>>32), uint32(v))
	} else {
		fmt.Fprintf(w, "Generation: %d    Version: 0x%08x\n", b.Generation.Get(), b.VersionLo.Get())
	}
	fmt.Fprintf(w, "User: %5d   Group: %5d", raw.UID(), raw.GID())
	if extra >= 32 {
		fmt.Fprintf(w, "   Project: %5d", raw.Projid())
	}
	fmt.Fprintf(w, "   Size: %d\n", raw.Size(true))
	fmt.Fprintf(w, "File ACL: %d\n", raw.FileACL())
	fmt.Fprintf(w, "Links: %d   Blockcount: %d\n", b.LinksCount.Get(), raw.Blocks(true))
	fmt.Fprintf(w, "Fragment:  Address: %d    Number: 0    Size: 0\n", b.ObsoFaddr.Get())
	s.showTimes(raw)
	if len(raw) > ondisk.GoodOldInodeSz {
		n := int(endian.View[ondisk.InodeExtra](raw[ondisk.GoodOldInodeSz:]).ExtraIsize.Get())
		fmt.Fprintf(w, "Size of extra inode fields: %d\n", n)
		if n > len(raw)-ondisk.GoodOldInodeSz {
			fmt.Fprintf(w, "invalid inode->i_extra_isize (%d)\n", n)
		}
	}
	list, err := r.Xattrs(ino, raw)
	s.showXattrs(list)
	if r.HasCsum() {
		fmt.Fprintf(w, "Inode checksum: 0x%08x\n", inodeCsum(raw))
	}
	return firstError(err, s.showContent(r, ino, raw))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// inodeCsum returns the checksum as stored.
func inodeCsum(raw ondisk.RawInode) uint32 {
	c := uint32(raw.Base().ChecksumLo.Get())
	if raw.ExtraIsize() >= 4 {
		c |= uint32(endian.View[ondisk.InodeExtra](raw[ondisk.GoodOldInodeSz:]).ChecksumHi.Get()) << 16
	}
	return c
}

func (s *session) showTimes(raw ondisk.RawInode) {
	w, b := s.out, raw.Base()
	if raw.ExtraIsize() < 24 {
		fmt.Fprintf(w, "ctime: 0x%08x -- %s\n", b.Ctime.Get(), ctime(int64(int32(b.Ctime.Get()))))
		fmt.Fprintf(w, "atime: 0x%08x -- %s\n", b.Atime.Get(), ctime(int64(int32(b.Atime.Get()))))
		fmt.Fprintf(w, "mtime: 0x%08x -- %s\n", b.Mtime.Get(), ctime(int64(int32(b.Mtime.Get()))))
		if t := b.Dtime.Get(); t != 0 {
			fmt.Fprintf(w, "dtime: 0x%08x -- %s\n", t, ctime(int64(int32(t))))
		}
		return
	}
	x := endian.View[ondisk.InodeExtra](raw[ondisk.GoodOldInodeSz:])
	crtime, _ := raw.Crtime()
	for _, t := range []struct {
		name      string
		lo, extra uint32
		at        int64
	}{
		{" ctime", b.Ctime.Get(), x.CtimeExtra.Get(), raw.Ctime().Sec},
		{" atime", b.Atime.Get(), x.AtimeExtra.Get(), raw.Atime().Sec},
		{" mtime", b.Mtime.Get(), x.MtimeExtra.Get(), raw.Mtime().Sec},
		{"crtime", x.Crtime.Get(), x.CrtimeExt.Get(), crtime.Sec},
	} {
		fmt.Fprintf(w, "%s: 0x%08x:%08x -- %s\n", t.name, t.lo, t.extra, ctime(t.at))
	}
	if t := b.Dtime.Get(); t != 0 {
		// The epoch of the time of deletion is that of ctime.
		at := int64(int32(t)) + int64(x.CtimeExtra.Get()&3)<<32
		fmt.Fprintf(w, " dtime: 0x%08x:(%08x) -- %s\n", t, x.CtimeExtra.Get(), ctime(at))
	}
}

// showContent shows what i_block says.
func (s *session) showContent(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	w, b := s.out, raw.Base()
	inline := b.Flags.Get()&ondisk.FlagInlineData != 0
	switch t := b.Mode.Get() & ondisk.ModeFmt; {
	case t == ondisk.ModeLnk && (inline || r.IsFastLink(raw)):
		f, err := r.FileOf(ino, raw)
		if err != nil {
			return err
		}
		target := make([]byte, min(f.Size(), int64(r.BlockSize())))
		if _, err := f.ReadAt(target, 0); err != nil && len(target) > 0 {
			return err
		}
		fmt.Fprintf(w, "Fast link dest: \"%s\"\n", cli.Clean(string(bytes.TrimRight(target, "\x00"))))
	case t == ondisk.ModeBlk || t == ondisk.ModeChr:
		major, minor := deviceNumber(raw)
		note := ""
		if endian.View[endian.LE32](b.Block[:]).Get() == 0 {
			note = "(New-style) "
		}
		fmt.Fprintf(w, "%sDevice major/minor number: %02d:%02d (hex %02x:%02x)\n", note, major, minor, major, minor)
	case b.Flags.Get()&ondisk.FlagExtents != 0:
		fmt.Fprintf(w, "EXTENTS:\n")
		return s.showExtentRuns(r, ino, raw)
	case inline:
		data, err := r.Inline(ino, raw)
		fmt.Fprintf(w, "Size of inline data: %d\n", len(data))
		return err
	default:
		fmt.Fprintf(w, "BLOCKS:\n")
		return s.showBlockRuns(r, ino, raw)
	}
	return nil
}

// showExtentRuns lists the extent tree on one line.
func (s *session) showExtentRuns(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	sep := ""
	top := -1
	err := r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		if run.Level > 0 {
			top = max(top, run.Level)
			fmt.Fprintf(s.out, "%s(ETB%d):%d", sep, top-run.Level, run.Pblk)
		} else {
			s.showRun(sep, run)
		}
		sep = ", "
		return !s.interrupted()
	})
	if sep != "" {
		s.out.WriteByte('\n')
	}
	return err
}

func (s *session) showRun(sep string, run ext2fs.RawRun) {
	u := ""
	if run.Unwritten {
		u = "[u]"
	}
	if run.Len == 1 {
		fmt.Fprintf(s.out, "%s(%d%s):%d", sep, run.Lblk, u, run.Pblk)
		return
	}
	fmt.Fprintf(s.out, "%s(%d-%d%s):%d-%d", sep, run.Lblk, uint64(run.Lblk)+uint64(run.Len)-1, u, run.Pblk, uint64(run.Pblk)+uint64(run.Len)-1)
}

// showBlockRuns lists what is mapped by block numbers on one line.
func (s *session) showBlockRuns(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	sep, total := "", uint64(0)
	var last ext2fs.RawRun
	flush := func() {
		if last.Len > 0 {
			s.showRun(sep, last)
			sep = ", "
		}
		last.Len = 0
	}
	err := r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		total += uint64(run.Len)
		switch {
		case run.Level > 0:
			flush()
			fmt.Fprintf(s.out, "%s(%s):%d", sep, []string{"", "IND", "DIND", "TIND"}[run.Level], run.Pblk)
			sep = ", "
		case last.Len > 0 && last.Lblk+ondisk.Lblk(last.Len) == run.Lblk && last.Pblk+ondisk.Fsblk(last.Len) == run.Pblk:
			last.Len += run.Len
		default:
			flush()
			last = run
		}
		return !s.interrupted()
	})
	flush()
	if total > 0 {
		fmt.Fprintf(s.out, "\nTOTAL: %d\n", total)
	}
	s.out.WriteByte('\n')
	return err
}

// inodeJSON is an inode as JSON.
type inodeJSON struct {
	Ino  ondisk.Ino `json:"ino"`
	Type string     `json:"type"`
	*inodeAttr
	Flags      string      `json:"flags"`
	Generation uint32      `json:"generation"`
	Version    uint64      `json:"version"`
	Projid     uint32      `json:"projid"`
	FileACL    uint64      `json:"file_acl"`
	Sectors    uint64      `json:"sectors"`
	Atime      time.Time   `json:"atime"`
	Ctime      time.Time   `json:"ctime"`
	Crtime     *time.Time  `json:"crtime,omitempty"`
	Dtime      *time.Time  `json:"dtime,omitempty"`
	ExtraIsize int         `json:"extra_isize"`
	Checksum   string      `json:"checksum,omitempty"`
	CsumValid  *bool       `json:"checksum_valid,omitempty"`
	Target     *string     `json:"target,omitempty"`
	Device     *[2]uint32  `json:"device,omitempty"`
	Xattrs     []xattrJSON `json:"xattrs,omitempty"`
	Mapping    []runJSON   `json:"mapping,omitempty"`
}

type runJSON struct {
	Level     int    `json:"level"`
	Lblk      uint32 `json:"lblk"`
	Pblk      uint64 `json:"pblk"`
	Len       uint32 `json:"len"`
	Unwritten bool   `json:"unwritten,omitempty"`
}

// maxRuns bounds what is shown of a mapping as one value.
const maxRuns = 1 << 20

func runsOf(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) (out []runJSON, err error) {
	out = []runJSON{}
	err = r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		out = append(out, runJSON{run.Level, uint32(run.Lblk), uint64(run.Pblk), run.Len, run.Unwritten})
		return len(out) < maxRuns
	})
	return out, err
}

func (s *session) statJSON(r *ext2fs.Raw, ino ondisk.Ino, raw ondisk.RawInode) error {
	b := raw.Base()
	when := func(t ondisk.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
	j := inodeJSON{Ino: ino, Type: typeName(b.Mode.Get()), inodeAttr: attrOf(r, raw), Flags: fmt.Sprintf("%#x", b.Flags.Get()),
		Generation: b.Generation.Get(), Version: raw.Version(), Projid: raw.Projid(), FileACL: uint64(raw.FileACL()), Sectors: r.Sectors(raw),
		Atime: when(raw.Atime()), Ctime: when(raw.Ctime()), ExtraIsize: raw.ExtraIsize()}
	if t, ok := raw.Crtime(); ok {
		c := when(t)
		j.Crtime = &c
	}
	if t := b.Dtime.Get(); t != 0 {
		c := time.Unix(int64(t), 0)
		j.Dtime = &c
	}
	if r.HasCsum() {
		ok := r.VerifyInode(ino, raw) == nil
		j.Checksum, j.CsumValid = fmt.Sprintf("0x%08x", inodeCsum(raw)), &ok
	}
	var err1, err2 error
	switch b.Mode.Get() & ondisk.ModeFmt {
	case ondisk.ModeLnk:
		target, err := r.Readlink(ino)
		j.Target, err1 = &target, err
	case ondisk.ModeBlk, ondisk.ModeChr:
		major, minor := deviceNumber(raw)
		j.Device = &[2]uint32{major, minor}
	}
	list, err := r.Xattrs(ino, raw)
	for i := range list {
		j.Xattrs = append(j.Xattrs, jsonXattr(&list[i]))
	}
	j.Mapping, err2 = runsOf(r, ino, raw)
	return firstError(s.emit(j), err, err1, err2)
}

// deviceNumber returns the numbers of a device, in either of their encodings.
func deviceNumber(raw ondisk.RawInode) (major, minor uint32) {
	p := endian.Views[endian.LE32](raw.Base().Block[:], 2)
	if d := p[0].Get(); d != 0 {
		return d >> 8 & 0xff, d & 0xff
	}
	d := p[1].Get()
	return (d & 0xfff00) >> 8, d&0xff | d>>12&0xfff00
}

func imap(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	ino, err := s.inode(a.word(0))
	if err != nil {
		return err
	}
	b, off, err := r.InodeAt(ino)
	if err != nil {
		return err
	}
	if s.json {
		return s.emit(map[string]any{"ino": ino, "group": r.GroupOfInode(ino), "block": b, "offset": off})
	}
	fmt.Fprintf(s.out, "Inode %d is part of block group %d\n\tlocated at block %d, offset 0x%04x\n", ino, r.GroupOfInode(ino), b, off)
	return nil
}
