package extract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Tar writes trees to w as a tar archive in the format of POSIX (pax), holes as
// GNU tar writes them (version 1.0). Equal trees give equal archives.
func Tar(r *ext2fs.Raw, roots []Root, w io.Writer, o Options) error {
	t := &tarSink{r: r, w: w, o: o}
	if err := walk(r, roots, t, o); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, 2*tarBlock))
	return err
}

const (
	tarBlock = 512
	tarChunk = 1 << 20
)

type tarSink struct {
	r   *ext2fs.Raw
	w   io.Writer
	o   Options
	buf []byte
}

func (t *tarSink) enter(n *node) error { return t.put(n, n.path+"/", '5', "", nil, nil) }
func (t *tarSink) leave(*node) error   { return nil }

func (t *tarSink) file(n *node) error {
	if n.link != "" {
		return t.put(n, n.path, '1', n.link, nil, nil)
	}
	switch n.typ() {
	case ondisk.ModeReg:
		f, err := t.r.FileOf(n.ino, n.raw)
		if err != nil {
			return err
		}
		segs, err := segments(f)
		if err != nil {
			return err
		}
		return t.put(n, n.path, '0', "", f, segs)
	case ondisk.ModeLnk:
		target, err := t.r.Readlink(n.ino)
		if err != nil {
			return err
		}
		return t.put(n, n.path, '2', target, nil, nil)
	case ondisk.ModeChr:
		return t.put(n, n.path, '3', "", nil, nil)
	case ondisk.ModeBlk:
		return t.put(n, n.path, '4', "", nil, nil)
	case ondisk.ModeFIFO:
		return t.put(n, n.path, '6', "", nil, nil)
	case ondisk.ModeSock:
		return errors.New("a socket: archives have none")
	}
	return fmt.Errorf("mode %#o: %w", n.raw.Base().Mode.Get(), ondisk.EUCLEAN)
}

// segment is a range of a file that holds data.
type segment struct{ off, n int64 }

// maxSegments bounds the map of a file; beyond, holes are written as zeros.
const maxSegments = 1 << 20

// segments returns where a file has data.
func segments(f *ext2fs.RawFile) (out []segment, err error) {
	for off := int64(0); off < f.Size(); {
		data, n, err := f.Segment(off)
		if err != nil {
			return nil, err
		}
		if data {
			if k := len(out); k > 0 && out[k-1].off+out[k-1].n == off || k >= maxSegments {
				out[k-1].n = off + n - out[k-1].off
			} else {
				out = append(out, segment{off, n})
			}
		}
		off += n
	}
	return out, nil
}

// put writes a file: its header and, if there is f, its content.
func (t *tarSink) put(n *node, name string, typ byte, target string, f *ext2fs.RawFile, segs []segment) error {
	rec := map[string]string{}
	attrs, bad := xattrs(t.r, n)
	if typ != '1' {
		for _, x := range attrs {
			k, v := paxXattr(&x)
			rec[k] = v
		}
	}
	size := int64(0)
	var holes []byte
	stored := name
	if f != nil {
		size = f.Size()
		if len(segs) != 1 && size > 0 || len(segs) == 1 && segs[0].n != size {
			holes = sparseMap(segs, size)
			rec["GNU.sparse.major"], rec["GNU.sparse.minor"] = "1", "0"
			rec["GNU.sparse.name"], rec["GNU.sparse.realsize"] = name, strconv.FormatInt(size, 10)
			stored = "GNUSparseFile.0/" + name
			size = int64(len(holes))
			for _, s := range segs {
				size += s.n
			}
		}
	}
	h := tarHeader{name: stored, mode: n.raw.Base().Mode.Get() & 0o7777, uid: n.raw.UID(), gid: n.raw.GID(), size: size,
		mtime: n.raw.Mtime(), typ: typ, link: target}
	if typ == '3' || typ == '4' {
		h.major, h.minor = device(n.raw)
	}
	if err := h.write(t.w, rec); err != nil {
		return err
	}
	if f == nil {
		return bad
	}
	if _, err := t.w.Write(holes); err != nil {
		return err
	}
	for _, s := range segs {
		if err := t.copy(f, s); err != nil {
			bad = errors.Join(bad, err)
		}
	}
	if pad := -size & (tarBlock - 1); pad > 0 {
		if _, err := t.w.Write(make([]byte, pad)); err != nil {
			return err
		}
	}
	return bad
}

// paxXattr returns the record of an attribute. ACLs are text, as GNU tar, bsdtar
// and star write and read them.
func paxXattr(x *ext2fs.RawXattr) (key, value string) {
	switch x.Index {
	case ondisk.XattrACLAccessIndex:
		key = "SCHILY.acl.access"
	case ondisk.XattrACLDefaultIndex:
		key = "SCHILY.acl.default"
	default:
		return "SCHILY.xattr." + x.Name, string(x.Value)
	}
	acl, err := ondisk.ParseXattrACL(x.Value)
	if err != nil { // it was made by XattrToUser
		return "SCHILY.xattr." + x.Name, string(x.Value)
	}
	var out []string
	for _, e := range acl {
		perm := []byte("---")
		for i, c := range "rwx" {
			if e.Perm&(4>>i) != 0 {
				perm[i] = byte(c)
			}
		}
		who := ""
		if e.Tag == ondisk.ACLUser || e.Tag == ondisk.ACLGroup {
			who = strconv.FormatUint(uint64(e.ID), 10)
		}
		out = append(out, aclTags[e.Tag]+":"+who+":"+string(perm))
	}
	return key, strings.Join(out, ",")
}

// aclTags are the tags of ACL entries as text has them.
var aclTags = map[uint16]string{
	ondisk.ACLUserObj: "user", ondisk.ACLUser: "user", ondisk.ACLGroupObj: "group", ondisk.ACLGroup: "group",
	ondisk.ACLMask: "mask", ondisk.ACLOther: "other",
}

// copy writes a segment. What cannot be read is zeros, so that the archive goes
// on; the error says so.
func (t *tarSink) copy(f *ext2fs.RawFile, s segment) (bad error) {
	if t.buf == nil {
		t.buf = make([]byte, tarChunk)
	}
	for s.n > 0 {
		p := t.buf[:min(int64(len(t.buf)), s.n)]
		n, err := f.ReadAt(p, s.off)
		if err != nil && err != io.EOF {
			bad = fmt.Errorf("at byte %d, zeros instead: %w", s.off+int64(n), err)
		}
		clear(p[n:])
		if _, err := t.w.Write(p); err != nil {
			return err
		}
		if t.o.Stop != nil && t.o.Stop() {
			return ErrStopped
		}
		s.off += int64(len(p))
		s.n -= int64(len(p))
	}
	return bad
}

// sparseMap is what precedes the data of a file with holes: how many segments,
// and offset and length of each, a line each, up to a whole block. The last one
// is empty and marks the end.
func sparseMap(segs []segment, size int64) []byte {
	var b bytes.Buffer
	list := segs
	if k := len(segs); k == 0 || segs[k-1].off+segs[k-1].n < size {
		list = append(append([]segment(nil), segs...), segment{size, 0})
	}
	fmt.Fprintf(&b, "%d\n", len(list))
	for _, s := range list {
		fmt.Fprintf(&b, "%d\n%d\n", s.off, s.n)
	}
	b.Write(make([]byte, -b.Len()&(tarBlock-1)))
	return b.Bytes()
}

// tarHeader is what a header of ustar has.
type tarHeader struct {
	name, link   string
	mode         uint16
	uid, gid     uint32
	size         int64
	mtime        ondisk.Time
	typ          byte
	major, minor uint32
}

// write writes the header, after an extended one for what does not fit and for
// rec.
func (h *tarHeader) write(w io.Writer, rec map[string]string) error {
	const most = 1<<21 - 1 // of an id, by its field
	if len(h.name) > 100 {
		rec["path"] = h.name
	}
	if len(h.link) > 100 {
		rec["linkpath"] = h.link
	}
	if h.uid > most {
		rec["uid"] = fmt.Sprint(h.uid)
	}
	if h.gid > most {
		rec["gid"] = fmt.Sprint(h.gid)
	}
	if h.size >= 1<<33 {
		rec["size"] = fmt.Sprint(h.size)
	}
	if h.mtime.Nsec != 0 || h.mtime.Sec < 0 || h.mtime.Sec >= 1<<33 {
		rec["mtime"] = paxTime(h.mtime)
	}
	if len(rec) > 0 {
		body := paxRecords(rec)
		x := tarHeader{name: "PaxHeaders.0/" + h.name[:min(len(h.name), 80)], mode: 0o644, size: int64(len(body)), typ: 'x'}
		if err := x.block(w); err != nil {
			return err
		}
		body = append(body, make([]byte, -len(body)&(tarBlock-1))...)
		if _, err := w.Write(body); err != nil {
			return err
		}
	}
	return h.block(w)
}

// block writes the block of the header itself; what does not fit is cut, since
// an extended header has it.
func (h *tarHeader) block(w io.Writer) error {
	b := make([]byte, tarBlock)
	octal := func(at, n int, v uint64) { copy(b[at:at+n-1], fmt.Sprintf("%0*o", n-1, v&(1<<(3*(n-1))-1))) }
	copy(b[0:100], h.name)
	octal(100, 8, uint64(h.mode))
	octal(108, 8, uint64(h.uid))
	octal(116, 8, uint64(h.gid))
	octal(124, 12, uint64(h.size))
	octal(136, 12, uint64(max(h.mtime.Sec, 0)))
	b[156] = h.typ
	copy(b[157:257], h.link)
	copy(b[257:265], "ustar\x0000")
	octal(329, 8, uint64(h.major))
	octal(337, 8, uint64(h.minor))
	copy(b[148:156], "        ")
	sum := uint64(0)
	for _, c := range b {
		sum += uint64(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	_, err := w.Write(b)
	return err
}

// paxTime writes a time in decimal, with the nanoseconds that it has.
func paxTime(t ondisk.Time) string {
	sec, nsec, sign := t.Sec, int64(t.Nsec), ""
	if sec < 0 && nsec > 0 {
		sec, nsec = sec+1, 1e9-nsec
	}
	if sec < 0 || t.Sec < 0 {
		sign, sec = "-", -sec
	}
	s := fmt.Sprintf("%s%d", sign, sec)
	if nsec != 0 {
		s += "." + fmt.Sprintf("%09d", nsec)
	}
	return s
}

// paxRecords returns records as an extended header has them, in order.
func paxRecords(rec map[string]string) []byte {
	keys := make([]string, 0, len(rec))
	for k := range rec {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b bytes.Buffer
	for _, k := range keys {
		n := len(k) + len(rec[k]) + 3 // blank, =, newline
		size := n + len(strconv.Itoa(n))
		if len(strconv.Itoa(size)) > len(strconv.Itoa(n)) {
			size++
		}
		fmt.Fprintf(&b, "%d %s=%s\n", size, k, rec[k])
	}
	return b.Bytes()
}
