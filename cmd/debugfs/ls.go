package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFiles,
		request{names: []string{"list_directory", "ls"}, args: "[-c] [-d] [-l] [-p] [-r] [directory]",
			help:  "list a directory: -l long, -p for programs, -d deleted entries too, -c checksums, -r names as they are",
			needs: needFS, max: 1, opts: options("cdlpr"), run: ls})
}

// dirEntry is an entry of a directory as JSON has it.
type dirEntry struct {
	Ino     ondisk.Ino `json:"ino"`
	Name    string     `json:"name"`
	Type    uint8      `json:"file_type"`
	RecLen  int        `json:"rec_len"`
	Offset  int        `json:"offset"`
	Block   uint32     `json:"block"`
	Deleted bool       `json:"deleted,omitempty"`
	Csum    string     `json:"checksum,omitempty"`
	*inodeAttr
}

// inodeAttr are attributes of an inode as JSON has them.
type inodeAttr struct {
	Mode  string    `json:"mode"`
	UID   uint32    `json:"uid"`
	GID   uint32    `json:"gid"`
	Size  int64     `json:"size"`
	Links uint16    `json:"links"`
	Mtime time.Time `json:"mtime"`
}

func attrOf(r *ext2fs.Raw, raw ondisk.RawInode) *inodeAttr {
	return &inodeAttr{Mode: fmt.Sprintf("%06o", raw.Base().Mode.Get()), UID: raw.UID(), GID: raw.GID(), Size: r.Size(raw),
		Links: raw.Base().LinksCount.Get(), Mtime: time.Unix(raw.Mtime().Sec, int64(raw.Mtime().Nsec))}
}

func ls(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	dir := s.cwd
	if a.word(0) != "" {
		if dir, err = s.directory(a.word(0)); err != nil {
			return err
		}
	}
	flags := ext2fs.DirEmpty
	if a.has("d") {
		flags |= ext2fs.DirDeleted
	}
	if a.has("c") {
		flags |= ext2fs.DirTail
	}
	if s.json {
		return s.lsJSON(r, dir, flags)
	}
	l := &lister{s: s, r: r, plain: a.has("r")}
	show, end := l.short, "\n"
	switch {
	case a.has("p"):
		show = l.parsable
	case a.has("l"):
		show = l.long
	}
	err = r.Dirents(dir, flags, func(e *ext2fs.RawDirent) bool {
		show(e)
		return !s.interrupted()
	})
	s.out.WriteString(end)
	if err == nil {
		err = l.err
	}
	return err
}

// lsJSON lists a directory, an entry at a time: a hostile one has no end.
func (s *session) lsJSON(r *ext2fs.Raw, dir ondisk.Ino, flags ext2fs.DirFlags) error {
	list := s.list()
	err := r.Dirents(dir, flags, func(e *ext2fs.RawDirent) bool {
		d := dirEntry{Ino: e.Ino, Name: string(e.Name), Type: e.FileType, RecLen: e.RecLen, Offset: e.Off, Block: uint32(e.Lblk), Deleted: e.Deleted}
		if e.Tail {
			d.Csum = fmt.Sprintf("0x%08x", e.Csum)
		}
		if raw, err := r.Inode(e.Ino); err == nil && !e.Tail {
			d.inodeAttr = attrOf(r, raw)
		}
		return list.add(d) == nil && !s.interrupted()
	})
	list.end()
	return err
}

// jsonList writes a JSON array, an element at a time.
type jsonList struct {
	out *bufio.Writer
	n   int
}

func (s *session) list() *jsonList { return &jsonList{out: s.out} }

func (l *jsonList) add(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n "
	if l.n == 0 {
		sep = "[\n "
	}
	l.n++
	l.out.WriteString(sep)
	_, err = l.out.Write(b)
	return err
}

func (l *jsonList) end() {
	if l.n == 0 {
		l.out.WriteString("[]\n")
	} else {
		l.out.WriteString("\n]\n")
	}
}

// lister prints entries in the forms of ls.
type lister struct {
	s     *session
	r     *ext2fs.Raw
	plain bool // names as they are
	col   int
	err   error // the first inode that could not be read
}

// title returns what stands for the name.
func (l *lister) title(e *ext2fs.RawDirent) string {
	if e.Tail {
		return fmt.Sprintf("(dirblock checksum: 0x%08x)", e.Csum)
	}
	if l.plain {
		return string(e.Name)
	}
	return escape(e.Name)
}

// escape shows all but printable ASCII as \xNN.
func escape(name []byte) string {
	if printable(name) {
		return string(name)
	}
	var b strings.Builder
	for _, c := range name {
		if c >= 0x20 && c < 0x7f {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\x%02x", c)
		}
	}
	return b.String()
}

func (l *lister) inode(e *ext2fs.RawDirent) (ondisk.RawInode, bool) {
	raw, err := l.r.Inode(e.Ino)
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("%s: %w", e.Name, err)
	}
	return raw, err == nil
}

// width is how many columns short fills.
const width = 80

func (l *lister) short(e *ext2fs.RawDirent) {
	lb, rb := byte(' '), byte(' ')
	if e.Deleted {
		lb, rb = '<', '>'
	}
	t := fmt.Sprintf("%c%d%c (%d) %s   ", lb, e.Ino, rb, e.RecLen, l.title(e))
	if e.Tail {
		t = fmt.Sprintf("%c%d%c %s   ", lb, e.Ino, rb, l.title(e))
	}
	if l.col+len(t) > width {
		l.s.out.WriteByte('\n')
		l.col = 0
	}
	l.s.out.WriteString(t)
	l.col += len(t)
}

func (l *lister) long(e *ext2fs.RawDirent) {
	lb, rb := byte(' '), byte(' ')
	if e.Deleted {
		lb, rb = '<', '>'
	}
	raw := make(ondisk.RawInode, ondisk.GoodOldInodeSz)
	date := "                 "
	if e.Ino != 0 {
		var ok bool
		if raw, ok = l.inode(e); !ok {
			return
		}
		date = time.Unix(raw.Mtime().Sec, 0).Format("_2-Jan-2006 15:04")
	}
	fmt.Fprintf(l.s.out, "%c%6d%c %6o (%d)  %5d  %5d   %5d %s %s\n", lb, e.Ino, rb, raw.Base().Mode.Get(), e.FileType,
		raw.UID(), raw.GID(), l.r.Size(raw), date, l.title(e))
}

func (l *lister) parsable(e *ext2fs.RawDirent) {
	raw := make(ondisk.RawInode, ondisk.GoodOldInodeSz)
	if e.Ino != 0 {
		var ok bool
		if raw, ok = l.inode(e); !ok {
			return
		}
	}
	mode := raw.Base().Mode.Get()
	fmt.Fprintf(l.s.out, "/%d/%06o/%d/%d/%s/", e.Ino, mode, raw.UID(), raw.GID(), l.title(e))
	if mode&ondisk.ModeFmt == ondisk.ModeDir {
		l.s.out.WriteByte('/')
	} else {
		fmt.Fprintf(l.s.out, "%d/", l.r.Size(raw))
	}
	l.s.out.WriteByte('\n')
}
