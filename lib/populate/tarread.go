package populate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// An archive is read here, and not by archive/tar, since that hides where the
// data of a sparse file lies: a terabyte of zeros would be read as such.

const (
	tarBlock   = 512
	maxPaxSize = 8 << 20 // of the records of one entry, and of those for all that follow
	maxTarName = 64 << 10
	maxGlobal  = 1000 // records that hold for all entries that follow: each takes time for each of them
)

// tarHeader is an entry, with all that is said of it in any format.
type tarHeader struct {
	name, link   string
	typ          byte
	mode         uint32
	uid, gid     uint32
	size         int64 // of the file
	stored       int64 // bytes of it in the archive
	at           int64 // where they are
	mtime, atime ondisk.Time
	hasAtime     bool
	major, minor uint32
	attrs        []xattr
	sparse       ref // what of it is data, 0: all
	segs         sparseMap
}

// tarReader reads headers one after the other.
type tarReader struct {
	store  *store // for maps of sparse files
	sec    section
	pos    int64
	global pax
	grown  int64 // bytes of global that were added since it was last measured
	blk    [tarBlock]byte
}

// readTar calls f with each entry of an archive, in order.
func readTar(ctx context.Context, s *store, sec section, f func(*tarHeader) error) error {
	r := &tarReader{store: s, sec: sec, global: pax{}}
	if sec.size == 0 {
		return badInput("it is empty")
	}
	for i := 0; ; i++ {
		if i&255 == 0 {
			if err := interrupted(ctx); err != nil {
				return err
			}
		}
		h, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", r.pos, err)
		}
		if err := f(h); err != nil {
			return err
		}
	}
}

// read fills p from byte off on, which all has to be there.
func (r *tarReader) read(p []byte, off int64) error {
	if off < 0 || off > r.sec.size-int64(len(p)) {
		return badInput("the archive ends in the middle of an entry")
	}
	n, err := r.sec.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	return err
}

// next returns the next entry; io.EOF at the end.
func (r *tarReader) next() (*tarHeader, error) {
	var local pax
	var longName, longLink string
	var records int64
	for {
		if r.pos >= r.sec.size { // no zeros at the end: other programs forgive it too
			if local != nil || longName != "" || longLink != "" {
				return nil, badInput("the archive ends after the extension of a header")
			}
			return nil, io.EOF
		}
		if err := r.read(r.blk[:], r.pos); err != nil {
			return nil, err
		}
		if isZero(r.blk[:]) {
			return nil, io.EOF
		}
		h, err := parseHeader(&r.blk)
		if err != nil {
			return nil, err
		}
		data := r.pos + tarBlock
		switch h.typ {
		case 'x', 'g', 'X':
			p, err := r.records(data, h.stored)
			if err != nil {
				return nil, err
			}
			if h.typ == 'g' {
				if err := r.mergeGlobal(p, h.stored); err != nil {
					return nil, err
				}
			} else if records += h.stored; records > maxPaxSize {
				return nil, badInput("the extensions of a header have more than %d bytes", maxPaxSize)
			} else if local == nil {
				local = p
			} else {
				local.merge(p)
			}
		case 'L', 'K':
			s, err := r.text(data, h.stored, maxTarName)
			if err != nil {
				return nil, err
			}
			s, _, _ = strings.Cut(s, "\x00")
			if h.typ == 'L' {
				longName = s
			} else {
				longLink = s
			}
		case 'V', 'N': // a label; long names of old, which nobody writes
		case 'M':
			return nil, badInput("it is a part of an archive of several volumes")
		default:
			if longName != "" {
				h.name = longName
			}
			if longLink != "" {
				h.link = longLink
			}
			return r.entry(h, data, local)
		}
		if r.pos, err = after(data, h.stored); err != nil {
			return nil, err
		}
	}
}

// after returns where the next header is.
func after(data, stored int64) (int64, error) {
	if stored < 0 || stored > 1<<62-data {
		return 0, badInput("size %d", stored)
	}
	return data + (stored+tarBlock-1)/tarBlock*tarBlock, nil
}

// text reads n bytes of an extension.
func (r *tarReader) text(at, n, most int64) (string, error) {
	if n < 0 || n > most {
		return "", badInput("the extension of a header has %d bytes; at most %d are read", n, most)
	}
	if at > r.sec.size-n {
		return "", badInput("the archive ends in the middle of an entry")
	}
	b := make([]byte, n)
	if err := r.read(b, at); err != nil {
		return "", err
	}
	return string(b), nil
}

func (r *tarReader) records(at, n int64) (pax, error) {
	s, err := r.text(at, n, maxPaxSize)
	if err != nil {
		return nil, err
	}
	return parsePax(s)
}

// mergeGlobal adds records, of n bytes, to those for all entries that follow.
func (r *tarReader) mergeGlobal(p pax, n int64) error {
	r.global.merge(p)
	if len(r.global) > maxGlobal {
		return badInput("more than %d records are said of all entries", maxGlobal)
	}
	if r.grown += n; r.grown <= maxPaxSize {
		return nil
	}
	r.grown = 0
	for k, v := range r.global {
		r.grown += int64(len(k) + len(v))
	}
	if r.grown > maxPaxSize {
		return badInput("the extensions for all entries have more than %d bytes", maxPaxSize)
	}
	return nil
}

// entry completes a header by its extensions and finds its data.
func (r *tarReader) entry(h *tarHeader, data int64, local pax) (*tarHeader, error) {
	recs := r.global
	if local != nil {
		recs = pax{}
		recs.merge(r.global)
		recs.merge(local)
	}
	h.size = h.stored
	if err := h.applyPax(recs); err != nil {
		return nil, err
	}
	if h.typ == '0' && strings.HasSuffix(h.name, "/") {
		h.typ = '5'
	}
	switch h.typ {
	case '1', '2', '3', '4', '5', '6': // only a header, whatever size it has
		h.size, h.stored = 0, 0
	}
	if h.typ == 'D' { // a list of names follows
		h.typ, h.size = '5', 0
	}
	h.at = data
	end, err := after(data, h.stored)
	if err != nil {
		return nil, err
	}
	if data+h.stored > r.sec.size {
		return nil, badInput("entry %q: the archive ends in the middle of it", h.name)
	}
	switch {
	case h.typ == 'S':
		grown, err := r.oldSparse(h, data)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.name, err)
		}
		end += grown
		if h.at+h.stored > r.sec.size {
			return nil, badInput("entry %q: the archive ends in the middle of it", h.name)
		}
	case recs.sparse():
		if err := r.paxSparse(h, recs); err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.name, err)
		}
	}
	if h.segs.s != nil {
		if h.sparse, err = h.endSparse(); err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.name, err)
		}
	}
	r.pos = end
	return h, nil
}

// Places in a header.
var (
	tarMagicUstar = []byte("ustar\x00")
	tarMagicGNU   = []byte("ustar  \x00")
)

// parseHeader reads one block.
func parseHeader(b *[tarBlock]byte) (*tarHeader, error) {
	sum, err := number(b[148:156])
	if err != nil {
		return nil, badInput("it is not a tar header")
	}
	var unsigned, signed int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	if sum != unsigned && sum != signed {
		return nil, badInput("it is not a tar header: its checksum is wrong")
	}
	h := &tarHeader{name: cstring(b[0:100]), link: cstring(b[157:257]), typ: b[156]}
	if h.typ == 0 {
		h.typ = '0'
	}
	var fields [5]int64
	for i, f := range [...]struct {
		name string
		b    []byte
	}{{"mode", b[100:108]}, {"uid", b[108:116]}, {"gid", b[116:124]}, {"size", b[124:136]}, {"mtime", b[136:148]}} {
		if fields[i], err = number(f.b); err != nil {
			return nil, badInput("entry %q: %s %q", h.name, f.name, f.b)
		}
	}
	if h.uid, err = idOf(fields[1]); err == nil {
		h.gid, err = idOf(fields[2])
	}
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", h.name, err)
	}
	h.mode = uint32(fields[0])
	h.stored = fields[3]
	h.mtime = ondisk.Time{Sec: fields[4]}
	if h.stored < 0 {
		return nil, badInput("entry %q: size %d", h.name, h.stored)
	}
	ustar, gnu := bytes.Equal(b[257:263], tarMagicUstar), bytes.Equal(b[257:265], tarMagicGNU)
	if ustar || gnu {
		if h.typ == '3' || h.typ == '4' {
			ma, err1 := number(b[329:337])
			mi, err2 := number(b[337:345])
			if err1 != nil || err2 != nil || ma < 0 || mi < 0 || ma > 1<<32-1 || mi > 1<<32-1 {
				return nil, badInput("entry %q: device %q, %q", h.name, b[329:337], b[337:345])
			}
			h.major, h.minor = uint32(ma), uint32(mi)
		}
		if p := cstring(b[345:500]); ustar && p != "" {
			h.name = p + "/" + h.name
		}
	}
	return h, nil
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// idOf returns a user or group. Some writers have -2 and the like.
func idOf(v int64) (uint32, error) {
	if v < -1<<31 || v > 1<<32-1 {
		return 0, badInput("owner %d: ext4 has 32 bits", v)
	}
	return uint32(v), nil
}

// number reads a field: octal digits, or big-endian binary if the first bit is
// set.
func number(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		neg := b[0]&0x40 != 0
		v := uint64(b[0] & 0x7f)
		fill := byte(0)
		if neg {
			v |= ^uint64(0x7f)
			fill = 0xff
		}
		for _, c := range b[1:] {
			if top := byte(v >> 56); top != fill || (v>>55&1 == 1) != neg {
				return 0, strconv.ErrRange
			}
			v = v<<8 | uint64(c)
		}
		return int64(v), nil
	}
	s := strings.Trim(string(b), " \x00")
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	if s == "" {
		return 0, nil
	}
	neg := strings.HasPrefix(s, "-")
	v, err := strconv.ParseUint(strings.TrimPrefix(s, "-"), 8, 63)
	if neg {
		return -int64(v), err
	}
	return int64(v), err
}

// oldSparse reads the map of GNU's own sparse format: some in the header, the
// rest in blocks after it. It returns how many bytes those take.
func (r *tarReader) oldSparse(h *tarHeader, data int64) (grown int64, err error) {
	b := &r.blk
	if h.size, err = number(b[483:495]); err != nil {
		return 0, badInput("size %q", b[483:495])
	}
	h.segs.s = r.store
	at := data
	add := func(list []byte) error {
		for ; len(list) >= 24; list = list[24:] {
			if list[0] == 0 && list[12] == 0 {
				return nil
			}
			off, err1 := number(list[:12])
			n, err2 := number(list[12:24])
			if err1 != nil || err2 != nil {
				return badInput("sparse map")
			}
			if err := h.addSparse(off, n); err != nil {
				return err
			}
		}
		return nil
	}
	if err := add(b[386:482]); err != nil {
		return 0, err
	}
	more := b[482] != 0
	var ext [tarBlock]byte
	for more {
		if err := r.read(ext[:], at); err != nil {
			return 0, err
		}
		at += tarBlock
		if err := add(ext[:504]); err != nil {
			return 0, err
		}
		more = ext[504] != 0
	}
	h.at = at
	return at - data, nil
}

// sparseMap is the map of a sparse file as it is read.
type sparseMap struct {
	segWriter
	end, used int64 // of the file, and of the data in the archive
}

// addSparse adds a range to the map of a sparse file, whose size is known.
func (h *tarHeader) addSparse(off, n int64) error {
	m := &h.segs
	if off < m.end || n < 0 || off > h.size || n > h.size-off {
		return badInput("sparse map: %d bytes at %d of %d", n, off, h.size)
	}
	at := m.used
	m.end, m.used = off+n, at+n
	if n == 0 {
		return nil
	}
	return m.add(seg{off, n, at})
}

// endSparse returns the map, whose data is in the archive.
func (h *tarHeader) endSparse() (ref, error) {
	if h.size < 0 {
		return 0, badInput("size %d", h.size)
	}
	if h.segs.used > h.stored {
		return 0, badInput("sparse map: more data than there is")
	}
	return h.segs.segWriter.end()
}

// paxSparse reads the map of a sparse file in one of the three forms that GNU
// tar has for pax archives.
func (r *tarReader) paxSparse(h *tarHeader, p pax) error {
	h.segs.s = r.store
	if s := p["GNU.sparse.realsize"]; s != "" {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return badInput("GNU.sparse.realsize %q", s)
		}
		h.size = v
	} else if s := p["GNU.sparse.size"]; s != "" {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return badInput("GNU.sparse.size %q", s)
		}
		h.size = v
	}
	if n := p["GNU.sparse.name"]; n != "" {
		h.name = n
	}
	if p["GNU.sparse.major"] == "1" {
		return r.sparseInData(h)
	}
	for rest := p["GNU.sparse.map"]; rest != ""; {
		a, b, ok := "", "", false
		if a, rest, ok = strings.Cut(rest, ","); !ok {
			return badInput("GNU.sparse.map has an odd count of numbers")
		}
		b, rest, _ = strings.Cut(rest, ",")
		off, err1 := strconv.ParseInt(a, 10, 64)
		n, err2 := strconv.ParseInt(b, 10, 64)
		if err1 != nil || err2 != nil {
			return badInput("GNU.sparse.map: %q, %q", a, b)
		}
		if err := h.addSparse(off, n); err != nil {
			return err
		}
	}
	return nil
}

// sparseInData reads a map that precedes the data: decimal numbers, a line each,
// up to the end of a block.
func (r *tarReader) sparseInData(h *tarHeader) error {
	at, end := h.at, h.at+h.stored
	var blk []byte
	var buf [tarBlock]byte
	number := func() (int64, error) {
		var v int64
		for digits := 0; ; digits++ {
			if len(blk) == 0 {
				if at+tarBlock > end {
					return 0, badInput("sparse map without an end")
				}
				if err := r.read(buf[:], at); err != nil {
					return 0, err
				}
				at += tarBlock
				blk = buf[:]
			}
			c := blk[0]
			blk = blk[1:]
			if c == '\n' && digits > 0 {
				return v, nil
			}
			if c < '0' || c > '9' || digits > 18 {
				return 0, badInput("sparse map")
			}
			v = v*10 + int64(c-'0')
		}
	}
	n, err := number()
	if err != nil {
		return err
	}
	for range n { // each takes bytes of the archive
		off, err := number()
		if err != nil {
			return err
		}
		k, err := number()
		if err != nil {
			return err
		}
		if err := h.addSparse(off, k); err != nil {
			return err
		}
	}
	h.stored -= at - h.at
	h.at = at
	return nil
}

// pax is the records of extended headers.
type pax map[string]string

// merge adds records, the empty ones to take a name out.
func (p pax) merge(q pax) {
	for k, v := range q {
		if v == "" && !strings.HasPrefix(k, "SCHILY.xattr.") { // whose values may be empty
			delete(p, k)
		} else {
			p[k] = v
		}
	}
}

func (p pax) sparse() bool {
	return p["GNU.sparse.major"] == "1" || p["GNU.sparse.map"] != "" || p["GNU.sparse.size"] != "" || p["GNU.sparse.realsize"] != ""
}

// parsePax reads records: "length name=value\n".
func parsePax(s string) (pax, error) {
	p := pax{}
	var sparse []string // of version 0.0: pairs under the same two names
	for s != "" {
		num, _, ok := strings.Cut(s[:min(len(s), 12)], " ")
		n, err := strconv.Atoi(num)
		if !ok || err != nil || n <= len(num)+1 || n > len(s) || s[n-1] != '\n' {
			return nil, badInput("extended header")
		}
		k, v, ok := strings.Cut(s[len(num)+1:n-1], "=")
		if !ok || k == "" {
			return nil, badInput("extended header")
		}
		s = s[n:]
		switch k {
		case "GNU.sparse.offset":
			if len(sparse)%2 != 0 {
				return nil, badInput("extended header: GNU.sparse.offset")
			}
			sparse = append(sparse, v)
			continue
		case "GNU.sparse.numbytes":
			if len(sparse)%2 != 1 {
				return nil, badInput("extended header: GNU.sparse.numbytes")
			}
			sparse = append(sparse, v)
			continue
		}
		if strings.IndexByte(k, 0) >= 0 {
			return nil, badInput("extended header: a NUL in a name")
		}
		p[k] = v
	}
	if len(sparse) > 0 {
		p["GNU.sparse.map"] = strings.Join(sparse, ",")
	}
	return p, nil
}
