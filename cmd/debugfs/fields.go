package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFields,
		request{names: []string{"set_super_value", "ssv"}, args: "field value | -l", help: "set a field of the superblock, or list those there are", max: -1, run: ssv},
		request{names: []string{"set_inode_field", "sif"}, args: "file field value | -l", help: "set a field of an inode", max: -1, run: sif},
		request{names: []string{"set_block_group", "set_bg"}, args: "group field value | -l", help: "set a field of a group descriptor", max: -1, run: setBG},
		request{names: []string{"set_mmp_value", "smmp"}, args: "field value | -l", help: "set a field of the MMP block", max: -1, run: smmp},
		request{names: []string{"modify_inode", "mi"}, args: "file", help: "edit an inode, field by field", needs: needFS | needWrite, min: 1, max: 1, run: modifyInode},
		request{names: []string{"set_current_time"}, args: "time", help: "set the time that changes are stamped with", min: 1, max: 1, run: setTime},
	)
}

// fieldArgs checks the n operands of a command that sets a field. -l is an
// operand: values may begin with a dash.
func (s *session) fieldArgs(a *args, n int, what string, fields []e2p.Field) (done bool, err error) {
	if len(a.words) == 1 && a.words[0] == "-l" {
		return true, s.listFields(what, fields)
	}
	switch {
	case len(a.words) != n:
		return false, usagef("%d arguments are needed", n)
	case s.name == "":
		return false, errors.New("no file system is open")
	case !s.opts.write:
		return false, errReadOnly
	}
	_, err = s.useRaw()
	return false, err
}

func (s *session) listFields(what string, fields []e2p.Field) error {
	if s.json {
		list := s.list()
		defer list.end()
		for i := range fields {
			f := &fields[i]
			if err := list.add(map[string]any{"name": f.Name, "type": fmt.Sprint(f.Kind), "elements": f.Len(), "halves": f.Hi}); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Fprintf(s.out, "Fields of the %s:\n", what)
	for i := range fields {
		f := &fields[i]
		name := f.Name
		if f.Len() > 0 {
			name += fmt.Sprintf("[%d]", f.Len())
		}
		if f.Hi {
			name += "[_hi|_lo]"
		}
		fmt.Fprintf(s.out, "\t%-25s\t%s\n", name, f.Kind)
	}
	return nil
}

func ssv(s *session, a *args) error {
	var none ondisk.Super
	if done, err := s.fieldArgs(a, 2, "superblock", e2p.Fields("s_", &none)); done || err != nil {
		return err
	}
	sb := s.raw.Super()
	f, err := e2p.FindField(e2p.Fields("s_", sb), strings.TrimPrefix(a.words[0], "s_"))
	if err != nil {
		return err
	}
	value := a.words[1]
	if f.Name == "encoding" && strings.HasPrefix(value, "utf") {
		n, err := e2p.ParseEncoding(value)
		if err != nil {
			return err
		}
		value = fmt.Sprint(n)
	}
	if a.words[0] == "checksum" && value == "calc" {
		sb.Checksum.Set(ondisk.SuperCsum(sb))
	} else if err := f.Set(value, s.now()); err != nil {
		return err
	}
	return s.raw.WriteSuper()
}

// inodeFields returns the fields of an inode, in place.
func inodeFields(raw ondisk.RawInode) []e2p.Field {
	if len(raw) == ondisk.GoodOldInodeSz {
		return e2p.Fields("i_", raw.Base())
	}
	return e2p.Fields("i_", raw.Base(), endian.View[ondisk.InodeExtra](raw[ondisk.GoodOldInodeSz:]))
}

func sif(s *session, a *args) error {
	none := make(ondisk.RawInode, 256)
	if done, err := s.fieldArgs(a, 3, "inode", inodeFields(none)); done || err != nil {
		return err
	}
	r, ino, raw, err := s.load(a.words[0])
	if err != nil {
		return err
	}
	name, value := strings.TrimPrefix(a.words[1], "i_"), a.words[2]
	if n, ok := strings.CutPrefix(name, "bmap["); ok {
		lblk, err := parseNumber(strings.TrimSuffix(n, "]"), 32)
		if err != nil {
			return err
		}
		pblk, err := s.parseBlock(value)
		if err != nil {
			return err
		}
		return r.SetBmap(ino, ondisk.Lblk(lblk), pblk)
	}
	if err := s.setInodeField(raw, name, value); err != nil {
		return err
	}
	// Who sets the checksum wants that one, right or wrong.
	return r.WriteInode(ino, raw, !strings.HasPrefix(name, "checksum") || value == "calc")
}

func (s *session) setInodeField(raw ondisk.RawInode, name, value string) error {
	b := raw.Base()
	switch name {
	case "block[IND]", "block[DIND]", "block[TIND]":
		name = map[string]string{"block[IND]": "block[12]", "block[DIND]": "block[13]", "block[TIND]": "block[14]"}[name]
	case "checksum":
		if value == "calc" {
			return nil
		}
	case "translator": // of the Hurd, as the three below
		name = "version_lo"
		if len(raw) == ondisk.GoodOldInodeSz {
			name = "version"
		}
	case "frag", "fsize", "author":
		n, err := parseNumber(value, map[string]int{"frag": 8, "fsize": 8, "author": 32}[name])
		if err != nil {
			return err
		}
		switch name {
		case "frag":
			b.BlocksHi[0] = byte(n)
		case "fsize":
			b.BlocksHi[1] = byte(n)
		default:
			b.ChecksumLo.Set(uint16(n))
			b.Reserved.Set(uint16(n >> 16))
		}
		return nil
	}
	set := map[string]func(ondisk.Time){"atime": raw.SetAtime, "mtime": raw.SetMtime, "ctime": raw.SetCtime, "crtime": raw.SetCrtime}[name]
	old := map[string]ondisk.Time{"atime": raw.Atime(), "mtime": raw.Mtime(), "ctime": raw.Ctime()}[name]
	if name == "crtime" {
		old, _ = raw.Crtime() // a zero time, if there is none
	}
	if base, ok := strings.CutSuffix(name, "_hi"); ok && strings.HasSuffix(base, "time") {
		name = base + "_extra"
	}
	if base, ok := strings.CutSuffix(name, "_lo"); ok && strings.HasSuffix(base, "time") {
		name = base
	} else if set != nil {
		t, err := e2p.ParseTime(value, s.now())
		if err != nil {
			return err
		}
		if name == "crtime" && raw.ExtraIsize() < 24 {
			return errors.New("the inode has no room for crtime: set extra_isize first")
		}
		set(ondisk.Time{Sec: t, Nsec: old.Nsec})
		return nil
	}
	f, err := e2p.FindField(inodeFields(raw), name)
	if err != nil {
		return err
	}
	return f.Set(value, s.now())
}

// descFields returns the fields of a group descriptor, in place.
func descFields(d ondisk.Desc) []e2p.Field {
	if d.Hi() == nil {
		return e2p.Fields("bg_", d.Lo())
	}
	return e2p.Fields("bg_", d.Lo(), d.Hi())
}

// setBG leaves the checksum of the descriptor to the user: it is an editor of
// bytes, and "checksum calc" sets it.
func setBG(s *session, a *args) error {
	none := make(ondisk.Desc, ondisk.GroupDescMin64)
	if done, err := s.fieldArgs(a, 3, "group descriptor", descFields(none)); done || err != nil {
		return err
	}
	n, err := parseNumber(a.words[0], 32)
	if err != nil {
		return err
	}
	r, g := s.raw, ondisk.Group(n)
	d, err := r.Desc(g)
	if err != nil {
		return err
	}
	if a.words[1] == "checksum" && a.words[2] == "calc" {
		d.Lo().Checksum.Set(r.DescCsum(g, d))
		fmt.Fprintf(s.out, "Checksum set to 0x%04x\n", d.Lo().Checksum.Get())
	} else {
		f, err := e2p.FindField(descFields(d), strings.TrimPrefix(a.words[1], "bg_"))
		if err != nil {
			return err
		}
		if err := f.Set(a.words[2], s.now()); err != nil {
			return err
		}
	}
	return r.WriteDesc(g, d, false)
}

func smmp(s *session, a *args) error {
	var none ondisk.MMP
	n := 2
	if a.word(0) == "clear" {
		n = 1
	}
	if done, err := s.fieldArgs(a, n, "MMP block", e2p.Fields("mmp_", &none)); done || err != nil {
		return err
	}
	r := s.raw
	blk, b, m, err := s.mmpBlock(r, 0)
	if err != nil {
		return err
	}
	if n == 1 {
		clearMMP(r, m)
	} else {
		f, err := e2p.FindField(e2p.Fields("mmp_", m), a.words[0])
		if err != nil {
			return err
		}
		if a.words[0] != "checksum" || a.words[1] != "calc" {
			if err := f.Set(a.words[1], s.now()); err != nil {
				return err
			}
		}
	}
	if r.HasCsum() && (a.words[0] != "checksum" || a.words[n-1] == "calc") {
		m.Seal(r.CsumSeed())
	}
	return r.WriteBlock(blk, b)
}

// clearMMP makes the block say that nobody uses the file system.
func clearMMP(r *ext2fs.Raw, m *ondisk.MMP) {
	*m = ondisk.MMP{}
	m.Magic.Set(ondisk.MMPMagic)
	m.Seq.Set(ondisk.MMPSeqClean)
	m.Time.Set(uint64(r.Now().Unix()))
	m.CheckInterval.Set(max(r.Super().MMPInterval.Get(), 5))
}

// miFields are what modify_inode asks for.
var miFields = []string{"mode", "uid", "gid", "size", "ctime", "mtime", "atime", "dtime", "links_count", "blocks", "flags", "generation"}

// modifyInode asks for the fields of an inode; an empty line keeps one.
func modifyInode(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	names := append([]string(nil), miFields...)
	for i := range 15 {
		names = append(names, fmt.Sprintf("block[%d]", i))
	}
	names = append(names, "file_acl")
	for _, name := range names {
		f, err := e2p.FindField(inodeFields(raw), name)
		if err != nil {
			return err
		}
		format := "%s [%d] "
		if name == "mode" || name == "flags" {
			format = "%s [%#o] "
		}
		line, err := s.ask(fmt.Sprintf(format, name, f.Uint()))
		if err != nil {
			return err
		}
		if line == "" {
			continue
		}
		if err := s.setInodeField(raw, name, line); err != nil {
			return err
		}
	}
	return r.WriteInode(ino, raw, true)
}

func setTime(s *session, a *args) error {
	n, err := e2p.ParseTime(a.word(0), time.Now())
	if err != nil {
		return err
	}
	t := time.Unix(n, 0)
	s.clock = &t
	fmt.Fprintf(s.out, "Setting current time to %s\n\n", t.Format(time.ANSIC))
	return nil
}
