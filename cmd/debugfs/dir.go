package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFiles,
		request{names: []string{"htree_dump", "htree"}, args: "directory", help: "show the index of a directory, and the names by it",
			needs: needFS, min: 1, max: 1, run: htree},
		request{names: []string{"dx_hash", "hash"}, args: "[-h hash] [-s seed] [-c] [-e encoding] name", help: "compute the hash of a name",
			min: 1, max: 1, opts: options("h:s:ce:v"), run: dxHash},
		request{names: []string{"dirsearch"}, args: "directory name", help: "show where a directory has a name", needs: needFS, min: 2, max: 2, run: dirsearch},
	)
}

func goTime(t ondisk.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// fileMode returns the permissions of an inode as package os has them.
func fileMode(mode uint16) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, is := range map[uint16]fs.FileMode{ondisk.ModeSUID: fs.ModeSetuid, ondisk.ModeSGID: fs.ModeSetgid, ondisk.ModeSVTX: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= is
		}
	}
	return m
}

func dirsearch(s *session, a *args) error {
	r, dir, err := s.rawInode(a.word(0))
	if err != nil {
		return err
	}
	_, e, err := r.FindDirent(dir, a.word(1))
	switch {
	case err != nil:
		return err
	case s.json:
		return s.emit(map[string]any{"ino": e.Ino, "lblk": e.Lblk, "pblk": e.Pblk, "offset": e.Off})
	}
	fmt.Fprintf(s.out, "Entry found at logical block %d, phys %d, offset %d\noffset %d\n", e.Lblk, e.Pblk, e.Off, e.Off)
	return nil
}

// hashNames are the hash functions of directories, by number.
var hashNames = []string{"legacy", "half_md4", "tea", "legacy_unsigned", "half_md4_unsigned", "tea_unsigned", "siphash"}

func dxHash(s *session, a *args) error {
	// The file system's own version and seed are not looked at, as ever: give
	// them by -h and -s.
	seed := (&ondisk.Super{}).DirHashSeed()
	version := uint8(ondisk.HashLegacy)
	if h, ok := a.value("h"); ok {
		n, err := hashVersion(h)
		if err != nil {
			return err
		}
		version = n
	}
	if v, ok := a.value("s"); ok {
		u, err := parseUUID(v)
		if err != nil {
			return err
		}
		w := endian.Views[endian.LE32](u[:], 4)
		for i := range seed {
			seed[i] = w[i].Get()
		}
	}
	name := a.word(0)
	if e, ok := a.value("e"); ok && e != "utf8" && !strings.HasPrefix(e, "utf8-12") {
		return fmt.Errorf("encoding %q is not known", e)
	}
	if a.has("c") {
		for i := range len(name) {
			if name[i] >= 0x80 {
				return errors.New("names of ASCII characters only are folded")
			}
		}
		name = strings.ToLower(name)
	}
	major, minor, ok := ondisk.DirHash(version, &seed, []byte(name))
	if !ok {
		return fmt.Errorf("hash version %d cannot be computed from a name", version)
	}
	if s.json {
		return s.emit(map[string]any{"name": a.word(0), "version": version, "hash": major, "minor": minor})
	}
	fmt.Fprintf(s.out, "Hash of %s is 0x%x (minor 0x%x)\n", cli.Clean(a.word(0)), major, minor)
	return nil
}

// hashVersion reads the name or the number of a hash function.
func hashVersion(w string) (uint8, error) {
	for i, n := range hashNames {
		if n == w {
			return uint8(i), nil
		}
	}
	n, err := parseNumber(w, 8)
	if err != nil {
		return 0, fmt.Errorf("hash function %q is not known: %s", w, strings.Join(hashNames, ", "))
	}
	return uint8(n), nil
}

// htree shows the nodes of an index, and the entries of the blocks that it
// leads to.
func htree(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	switch b := raw.Base(); {
	case b.Mode.Get()&ondisk.ModeFmt != ondisk.ModeDir:
		return errors.New("not a directory")
	case b.Flags.Get()&ondisk.FlagIndex == 0:
		return errors.New("the directory has no index")
	}
	t := &htreeDump{s: s, r: r, list: s.list(), ino: ino, raw: raw, left: 1 + uint64(r.Size(raw))/uint64(r.BlockSize())}
	root, err := t.block(0)
	if err != nil {
		return err
	}
	info := endian.View[ondisk.DxRootInfo](root[ondisk.DxRootInfoOff:])
	t.hash = r.Super().HashVersion(info.HashVersion[0])
	t.seed = r.Super().DirHashSeed()
	levels, infoLen := int(info.IndirectLevels[0]), int(info.InfoLength[0])
	if s.json {
		defer t.list.end()
		if err := t.list.add(map[string]any{"hash_version": info.HashVersion[0], "info_length": infoLen, "indirect_levels": levels, "flags": info.UnusedFlags[0]}); err != nil {
			return err
		}
		return t.node(0, root, ondisk.DxRootInfoOff+infoLen, levels)
	}
	fmt.Fprintf(s.out, "Root node dump:\n\t Reserved zero: %d\n\t Hash Version: %d\n\t Info length: %d\n\t Indirect levels: %d\n\t Flags: %s\n",
		info.Zero.Get(), info.HashVersion[0], info.InfoLength[0], info.IndirectLevels[0], alternate(info.UnusedFlags[0]))
	return t.node(0, root, ondisk.DxRootInfoOff+infoLen, levels)
}

// alternate returns a number as %#x of C has it: 0 is without a prefix.
func alternate(n uint8) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

type htreeDump struct {
	s    *session
	r    *ext2fs.Raw
	list *jsonList
	ino  ondisk.Ino
	raw  ondisk.RawInode
	hash uint8
	seed ondisk.HashSeed
	left uint64 // blocks that may still be shown: an index can lead in circles
	bad  error
}

func (t *htreeDump) block(lblk ondisk.Lblk) ([]byte, error) {
	if t.left == 0 {
		return nil, errors.New("the index leads to more blocks than the directory has")
	}
	t.left--
	run, err := t.r.Bmap(t.ino, t.raw, lblk)
	if err == nil && run.Pblk == 0 {
		err = fmt.Errorf("block %d of the directory is not mapped", lblk)
	}
	if err != nil {
		return nil, err
	}
	return t.r.Block(run.Pblk)
}

// dxNodeJSON is a node of an index as JSON has it.
type dxNodeJSON struct {
	Lblk     ondisk.Lblk   `json:"block"`
	Levels   int           `json:"levels_below"`
	Count    int           `json:"count"`
	Limit    int           `json:"limit"`
	Checksum string        `json:"checksum,omitempty"`
	Entries  []dxEntryJSON `json:"entries"`
}

type dxEntryJSON struct {
	Hash string      `json:"hash"`
	Lblk ondisk.Lblk `json:"block"`
}

// dxLeafJSON is a block of entries as JSON has it.
type dxLeafJSON struct {
	Lblk     ondisk.Lblk    `json:"leaf"`
	Pblk     ondisk.Fsblk   `json:"pblk"`
	Checksum string         `json:"checksum,omitempty"`
	Entries  []dxDirentJSON `json:"entries"`
}

type dxDirentJSON struct {
	Ino    ondisk.Ino `json:"ino"`
	Hash   string     `json:"hash"`
	Minor  string     `json:"minor"`
	RecLen int        `json:"rec_len"`
	Name   string     `json:"name"`
}

// node shows the node in block lblk, whose entries start at off, with levels of
// nodes below it.
func (t *htreeDump) node(lblk ondisk.Lblk, b []byte, off, levels int) error {
	w := t.s.out
	if t.s.json { // which comes when all is known
		w = bufio.NewWriter(io.Discard)
	}
	if off+ondisk.DxEntrySize > len(b) {
		return fmt.Errorf("entries of the node start at %d of %d bytes", off, len(b))
	}
	c := endian.View[ondisk.DxCountLimit](b[off:])
	count, limit := int(c.Count.Get()), int(c.Limit.Get())
	sum := ""
	fmt.Fprintf(w, "Number of entries (count): %d\nNumber of entries (limit): %d\n", count, limit)
	if tail := off + limit*ondisk.DxEntrySize; t.r.HasCsum() && tail+ondisk.DxTailSize <= len(b) {
		sum = fmt.Sprintf("0x%08x", endian.View[ondisk.DxTail](b[tail:]).Checksum.Get())
		fmt.Fprintf(w, "Checksum: %s\n", sum)
	}
	most := (len(b) - off) / ondisk.DxEntrySize
	if count > most {
		t.bad = firstError(t.bad, fmt.Errorf("%d entries in a node with room for %d", count, most))
		count = most
	}
	entries := endian.Views[ondisk.DxEntry](b[off:], count)
	hash := func(i int) uint32 {
		if i == 0 {
			return 0 // its place holds the counts
		}
		return entries[i].Hash.Get()
	}
	j := dxNodeJSON{Lblk: lblk, Levels: levels, Count: count, Limit: limit, Checksum: sum, Entries: []dxEntryJSON{}}
	for i := range entries {
		j.Entries = append(j.Entries, dxEntryJSON{fmt.Sprintf("0x%08x", hash(i)), ondisk.Lblk(entries[i].Block.Get())})
		x := ""
		if hash(i)&1 != 0 {
			x = "(**)"
		}
		fmt.Fprintf(w, "Entry #%d: Hash 0x%08x%s, block %d\n", i, hash(i), x, entries[i].Block.Get())
	}
	fmt.Fprintln(w)
	if t.s.json {
		if err := t.list.add(j); err != nil {
			return err
		}
	}
	for i := range entries {
		if t.s.interrupted() {
			return errInterrupted
		}
		lblk := ondisk.Lblk(entries[i].Block.Get())
		fmt.Fprintf(w, "Entry #%d: Hash 0x%08x, block %d\n", i, hash(i), lblk)
		below, err := t.block(lblk)
		switch {
		case err != nil:
			t.bad = firstError(t.bad, err)
			if t.left == 0 {
				return t.bad
			}
		case levels > 0:
			if err := t.node(lblk, below, ondisk.DxNodeOff, levels-1); err != nil {
				return err
			}
		default:
			t.leaf(lblk, below)
		}
	}
	fmt.Fprintln(w, "---------------------")
	return t.bad
}

// leaf shows the entries of a block.
func (t *htreeDump) leaf(lblk ondisk.Lblk, b []byte) {
	w := t.s.out
	run, _ := t.r.Bmap(t.ino, t.raw, lblk) // block has mapped it
	if t.s.json {
		j := dxLeafJSON{Lblk: lblk, Pblk: run.Pblk, Entries: []dxDirentJSON{}}
		_, err := t.r.ScanDirBlock(b, ext2fs.DirEmpty|ext2fs.DirTail, func(e *ext2fs.RawDirent) bool {
			if e.Tail {
				j.Checksum = fmt.Sprintf("0x%08x", e.Csum)
				return true
			}
			h, minor, _ := ondisk.DirHash(t.hash, &t.seed, e.Name) // an unknown hash is 0
			j.Entries = append(j.Entries, dxDirentJSON{e.Ino, fmt.Sprintf("0x%08x", h), fmt.Sprintf("0x%08x", minor), e.RecLen, string(e.Name)})
			return true
		})
		t.bad = firstError(t.bad, err, t.list.add(j))
		return
	}
	fmt.Fprintf(w, "Reading directory block %d, phys %d\n", lblk, run.Pblk)
	col := 0
	_, err := t.r.ScanDirBlock(b, ext2fs.DirEmpty|ext2fs.DirTail, func(e *ext2fs.RawDirent) bool {
		line := fmt.Sprintf("leaf block checksum: 0x%08x  ", e.Csum)
		if !e.Tail {
			h, minor, _ := ondisk.DirHash(t.hash, &t.seed, e.Name) // an unknown hash is 0
			line = fmt.Sprintf("%d 0x%08x-%08x (%d) %s   ", e.Ino, h, minor, e.RecLen, cli.Clean(string(e.Name)))
		}
		if col+len(line) > width {
			fmt.Fprintln(w)
			col = 0
		}
		col += len(line)
		fmt.Fprint(w, line)
		return true
	})
	t.bad = firstError(t.bad, err)
	fmt.Fprintln(w)
}
