package main

import (
	"fmt"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupBlocks, request{names: []string{"filefrag"}, args: "[-dvr] [file]",
		help:  "count the fragments of a file, or those of a directory: -v list them, -d of the directory itself, -r of what is below too",
		needs: needFS, max: 1, opts: options("dvr"), run: filefrag})
}

// fragReport counts fragments, and lists them.
type fragReport struct {
	s       *session
	r       *ext2fs.Raw
	verbose bool
	recurse bool
	dirs    uint64 // directories that may still be entered: their names can form a tree without end
	list    *jsonList
	bad     error
}

// fragJSON is a file's fragments as JSON has them.
type fragJSON struct {
	Path      string     `json:"path"`
	Ino       ondisk.Ino `json:"ino"`
	Fragments []runJSON  `json:"fragments"`
}

func filefrag(s *session, a *args) error {
	name := a.word(0)
	if name == "" {
		name = "."
	}
	r, ino, raw, err := s.load(name)
	if err != nil {
		return err
	}
	f := &fragReport{s: s, r: r, verbose: a.has("v"), recurse: a.has("r"), dirs: uint64(r.Inodes()), list: s.list()}
	if raw.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeDir || a.has("d") {
		f.file(name, ino, raw)
	} else {
		f.directory(name, ino, map[ondisk.Ino]bool{})
	}
	if s.json {
		f.list.end()
	} else {
		s.out.WriteByte('\n')
	}
	return f.bad
}

// directory reports all files in a directory, then those of the directories in
// it. above are those that it is in.
func (f *fragReport) directory(name string, ino ondisk.Ino, above map[ondisk.Ino]bool) {
	type dir struct {
		name string
		ino  ondisk.Ino
	}
	var below []dir
	above[ino] = true
	defer delete(above, ino)
	err := f.r.Dirents(ino, 0, func(e *ext2fs.RawDirent) bool {
		if isDots(e.Name) {
			return true
		}
		path := name + "/" + string(e.Name)
		raw, err := f.r.Inode(e.Ino)
		if err != nil {
			f.bad = firstError(f.bad, err)
			return true
		}
		f.file(path, e.Ino, raw)
		if f.recurse && raw.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir && !above[e.Ino] && len(above) < maxDepth && f.dirs > 0 {
			below = append(below, dir{path, e.Ino})
			f.dirs--
		}
		return !f.s.interrupted()
	})
	f.bad = firstError(f.bad, err)
	for _, d := range below {
		f.directory(d.name, d.ino, above)
	}
}

func (f *fragReport) file(name string, ino ondisk.Ino, raw ondisk.RawInode) {
	w := f.s.out
	n := (uint64(max(f.r.Size(raw), 0)) + uint64(f.r.BlockSize()) - 1) / uint64(f.r.BlockSize())
	lw, pw := max(len(fmt.Sprint(n)), 7), max(len(fmt.Sprint(uint64(f.r.Blocks()))), 8)
	text := f.verbose && !f.s.json
	if text {
		fmt.Fprintf(w, "\n%s has %d block(s), i_size is %d\n", cli.Clean(name), f.r.Sectors(raw)*512/uint64(f.r.BlockSize()), f.r.Size(raw))
		fmt.Fprintf(w, "%4s %*s %*s %*s %*s\n", "ext", lw, "logical", pw, "physical", pw, "expected", lw, "length")
	}
	j := fragJSON{Path: name, Ino: ino, Fragments: []runJSON{}}
	count := 0
	var cur ext2fs.RawRun // the fragment so far
	expected := ondisk.Fsblk(0)
	flush := func() {
		if cur.Len == 0 {
			return
		}
		if text {
			e := ""
			if expected != 0 {
				e = fmt.Sprint(expected)
			}
			fmt.Fprintf(w, "%4d %*d %*d %*s %*d\n", count, lw, cur.Lblk, pw, cur.Pblk, pw, e, lw, cur.Len)
		}
		if f.s.json && len(j.Fragments) < maxRuns {
			j.Fragments = append(j.Fragments, runJSON{0, uint32(cur.Lblk), uint64(cur.Pblk), cur.Len, cur.Unwritten})
		}
		count++
		cur.Len = 0
	}
	next, after := ondisk.Fsblk(0), ondisk.Lblk(0) // blocks after the last one
	err := f.r.WalkBlocks(ino, raw, func(run ext2fs.RawRun) bool {
		switch {
		case run.Level > 0:
			// Indirect blocks between the data that they lead to part it.
		case cur.Len > 0 && next == run.Pblk && cur.Lblk+ondisk.Lblk(cur.Len) == run.Lblk:
			cur.Len += run.Len
			next += ondisk.Fsblk(run.Len)
			after += ondisk.Lblk(run.Len)
		default:
			flush()
			expected = 0
			if count > 0 && after == run.Lblk {
				expected = next
			}
			cur, next, after = run, run.Pblk+ondisk.Fsblk(run.Len), run.Lblk+ondisk.Lblk(run.Len)
		}
		return !f.s.interrupted()
	})
	flush()
	f.bad = firstError(f.bad, err)
	if f.s.json {
		f.bad = firstError(f.bad, f.list.add(j))
		return
	}
	dir := ""
	if raw.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir {
		dir = " (dir)"
	}
	fmt.Fprintf(w, "%s: %d contiguous extents%s\n", cli.Clean(name), count, dir)
}
