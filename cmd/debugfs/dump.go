package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupBlocks,
		request{names: []string{"block_dump", "bdump", "bd"}, args: "[-x] [-f file] block", help: "show a block, or that block of a file, in hexadecimal; -x: as attributes",
			needs: needFS, min: 1, max: 1, opts: options("xf:"), run: blockDump},
		request{names: []string{"dump_unused"}, help: "print free blocks that are not zero", needs: needFS | needMaps, run: dumpUnused},
	)
	register(groupInodes,
		request{names: []string{"inode_dump", "idump", "id"}, args: "[-b] [-e] [-x] file",
			help:  "show an inode in hexadecimal: -b its i_block, -e what follows its fields, -x its attributes",
			needs: needFS, min: 1, max: 1, opts: options("bex"), run: inodeDump},
	)
}

// hexDump prints bytes, 16 on a line with their offset in octal; lines that are
// like the one before are one line with a star.
func hexDump(w io.Writer, b []byte) {
	const per = 16
	star := false
	for off := 0; off < len(b); off += per {
		line := b[off:min(off+per, len(b))]
		if off > 0 && bytes.Equal(line, b[off-len(line):off]) {
			if !star {
				fmt.Fprintln(w, "*")
			}
			star = true
			continue
		}
		star = false
		fmt.Fprintf(w, "%04o  ", off)
		text := make([]byte, len(line))
		for i := range per {
			if i < len(line) {
				fmt.Fprintf(w, "%02x", line[i])
				text[i] = '.'
				if c := line[i]; c >= 0x20 && c < 0x7f {
					text[i] = c
				}
			} else {
				io.WriteString(w, "  ")
			}
			if i%2 == 1 {
				io.WriteString(w, " ")
			}
		}
		fmt.Fprintf(w, " %s\n", text)
	}
	fmt.Fprintln(w)
}

func blockDump(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	b, err := s.parseBlock(a.word(0))
	if err != nil {
		return err
	}
	if f, ok := a.value("f"); ok {
		if b, err = s.blockOf(f, uint64(b)); err != nil {
			return err
		}
	}
	data := make([]byte, r.BlockSize())
	if err := r.ReadBlocks(data, b); err != nil {
		return err
	}
	if a.has("x") {
		return s.dumpXattrs(data, ondisk.XattrHeaderSize, 0)
	}
	if s.json {
		return s.emit(map[string]any{"block": b, "bytes": hex.EncodeToString(data)})
	}
	hexDump(s.out, data)
	return nil
}

// blockOf returns which block the n-th one of a file is.
func (s *session) blockOf(file string, n uint64) (ondisk.Fsblk, error) {
	r, ino, raw, err := s.load(file)
	if err != nil {
		return 0, err
	}
	if n > uint64(ondisk.MaxLblk) {
		return 0, fmt.Errorf("%s has no block %d", file, n)
	}
	run, err := r.Bmap(ino, raw, ondisk.Lblk(n))
	if err == nil && run.Pblk == 0 {
		err = fmt.Errorf("%s: block %d is not mapped", file, n)
	}
	return run.Pblk, err
}

func inodeDump(s *session, a *args) error {
	_, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	extra := raw[min(ondisk.GoodOldInodeSz+raw.ExtraIsize(), len(raw)):]
	if len(raw) == ondisk.GoodOldInodeSz {
		extra = nil
	}
	part := []byte(raw)
	switch {
	case a.has("b"):
		part = raw.Base().Block[:]
	case a.has("e"):
		part = extra
	case a.has("x"):
		return s.dumpXattrs(extra, ondisk.XattrIHeaderSize, ondisk.XattrIHeaderSize)
	}
	if s.json {
		return s.emit(map[string]any{"ino": ino, "bytes": hex.EncodeToString(part)})
	}
	if len(part) > 0 {
		hexDump(s.out, part)
	}
	return nil
}

// dumpXattrs prints the list of attributes in b as it is, however wrong: its
// entries start at first, and offsets of values count from base.
func (s *session) dumpXattrs(b []byte, first, base int) error {
	if len(b) < first {
		return fmt.Errorf("there is no room for attributes")
	}
	w := s.out
	magic := endian.View[endian.LE32](b).Get()
	if s.json {
		list, why := rawXattrs(b, first, base)
		return s.emit(map[string]any{"magic": magic, "length": len(b), "value_start": base, "entries": list, "end": why})
	}
	if base == 0 {
		fmt.Fprintf(w, "magic = %08x, length = %d\n", magic, len(b))
	} else {
		fmt.Fprintf(w, "magic = %08x, length = %d, value_start =%d \n\n", magic, len(b), base)
	}
	if magic != ondisk.XattrMagic {
		return nil
	}
	if base == 0 {
		h := endian.View[ondisk.XattrHeader](b)
		fmt.Fprintf(w, "refcount = %d, blocks = %d, hash = %x, checksum = %08x\n\n", h.Refcount.Get(), h.Blocks.Get(), h.Hash.Get(), h.Checksum.Get())
	}
	off := first
	for {
		if off+4 > len(b) {
			fmt.Fprintf(w, "\nend of the space at offset %d (%04o)\n", off, off)
			return nil
		}
		if endian.View[endian.LE32](b[off:]).Get() == 0 {
			fmt.Fprintf(w, "last entry found at offset %d (%04o)\n", off, off)
			return nil
		}
		if off+ondisk.XattrEntrySize > len(b) {
			fmt.Fprintf(w, "entry at offset %d (%04o) runs out of the space\n", off, off)
			return nil
		}
		e := endian.View[ondisk.XattrEntry](b[off:])
		n := int(e.NameLen[0])
		fmt.Fprintf(w, "offset = %d (%04o), hash = %d, name_len = %d, name_index = %d\n", off, off, e.Hash.Get(), n, e.NameIndex[0])
		fmt.Fprintf(w, "value_offset = %d (%04o), value_inum = %d, value_size = %d\n", e.ValueOffs.Get(), base+int(e.ValueOffs.Get()), e.ValueInum.Get(), e.ValueSize.Get())
		if off+ondisk.XattrEntrySize+n > len(b) {
			fmt.Fprintf(w, "name runs out of the space\n")
			return nil
		}
		fmt.Fprintf(w, "name = %s\n", caret(b[off+ondisk.XattrEntrySize:off+ondisk.XattrEntrySize+n]))
		at, size := base+int(e.ValueOffs.Get()), uint64(e.ValueSize.Get())
		switch {
		case e.ValueInum.Get() != 0:
			fmt.Fprintf(w, "value = <ino %d>\n", e.ValueInum.Get())
		case size == 0:
		case uint64(at)+size > uint64(len(b)):
			fmt.Fprintf(w, "value runs out of the space\n")
		default:
			fmt.Fprintf(w, "value = %s\n", caret(b[at:at+int(size)]))
		}
		fmt.Fprintln(w)
		off += ondisk.XattrLen(n)
	}
}

// rawXattrJSON is an entry of a list of attributes, as it is.
type rawXattrJSON struct {
	Offset      int    `json:"offset"`
	Hash        uint32 `json:"hash"`
	NameIndex   uint8  `json:"name_index"`
	Name        string `json:"name"`
	ValueOffset int    `json:"value_offset"`
	ValueInum   uint32 `json:"value_inum"`
	ValueSize   uint32 `json:"value_size"`
	Value       string `json:"value,omitempty"` // hexadecimal
}

// rawXattrs is dumpXattrs for JSON. It returns why the list ends, too.
func rawXattrs(b []byte, first, base int) (list []rawXattrJSON, end string) {
	list = []rawXattrJSON{}
	if endian.View[endian.LE32](b).Get() != ondisk.XattrMagic {
		return list, "there is no magic number"
	}
	for off := first; ; {
		if off+4 > len(b) {
			return list, "end of the space"
		}
		if endian.View[endian.LE32](b[off:]).Get() == 0 {
			return list, "last entry"
		}
		if off+ondisk.XattrEntrySize > len(b) {
			return list, "an entry runs out of the space"
		}
		e := endian.View[ondisk.XattrEntry](b[off:])
		n := int(e.NameLen[0])
		if off+ondisk.XattrEntrySize+n > len(b) {
			return list, "a name runs out of the space"
		}
		x := rawXattrJSON{Offset: off, Hash: e.Hash.Get(), NameIndex: e.NameIndex[0], Name: string(b[off+ondisk.XattrEntrySize : off+ondisk.XattrEntrySize+n]),
			ValueOffset: base + int(e.ValueOffs.Get()), ValueInum: e.ValueInum.Get(), ValueSize: e.ValueSize.Get()}
		if x.ValueInum == 0 && uint64(x.ValueOffset)+uint64(x.ValueSize) <= uint64(len(b)) {
			x.Value = hex.EncodeToString(b[x.ValueOffset : x.ValueOffset+int(x.ValueSize)])
		}
		list = append(list, x)
		off += ondisk.XattrLen(n)
	}
}

// caret shows control characters as ^X, and those above 127 after M-.
func caret(b []byte) string {
	var out bytes.Buffer
	for _, c := range b {
		if c >= 0x80 {
			out.WriteString("M-")
			c &= 0x7f
		}
		if c < 0x20 || c == 0x7f {
			out.WriteByte('^')
			c ^= 0x40
		}
		out.WriteByte(c)
	}
	return out.String()
}

func dumpUnused(s *session, _ *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	buf := make([]byte, r.BlockSize())
	list := s.list()
	var bad error
	err = r.FreeBlocksFrom(0, func(b ondisk.Fsblk) bool {
		if err := r.ReadBlocks(buf, b); err != nil {
			bad = err
			return false
		}
		switch {
		case zero(buf):
		case s.json:
			bad = list.add(map[string]any{"block": b, "bytes": hex.EncodeToString(buf)})
		default:
			fmt.Fprintf(s.out, "\nUnused block %d contains non-zero data:\n\n", b)
			s.out.Write(buf)
		}
		return bad == nil && !s.interrupted()
	})
	if s.json {
		list.end()
	}
	return firstError(err, bad)
}

func zero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
