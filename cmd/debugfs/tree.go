package main

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFiles,
		request{names: []string{"du"}, args: "[-s] [directory]", help: "show what directories take, in KiB; -s: only the whole", needs: needFS, max: 1, opts: options("s"), run: du},
		request{names: []string{"find"}, args: "[-n pattern] [-t type] [directory]", help: "list the paths below a directory whose name matches, or of type f, d, l, b, c, p or s",
			needs: needFS, max: 1, opts: options("n:t:"), run: findPaths},
		request{names: []string{"grep"}, args: "[-i] [-l] pattern file...", help: "show the lines of files, or of all files below directories, that match a regular expression; -l: only which files",
			needs: needFS, min: 2, max: -1, opts: options("il"), run: grep},
		request{names: []string{"diff"}, args: "device [directory]", help: "show how the tree differs from that of another file system", needs: needFS, min: 1, max: 2, run: diff},
	)
}

// visitTree calls fn with the path and inode of ino and of all that is below
// it, each directory once, a directory before what is in it.
func (s *session) visitTree(r *ext2fs.Raw, name string, ino ondisk.Ino, fn func(p string, ino ondisk.Ino, raw ondisk.RawInode) error) error {
	seen := map[ondisk.Ino]bool{}
	var bad error
	var visit func(p string, ino ondisk.Ino, depth int) error
	visit = func(p string, ino ondisk.Ino, depth int) error {
		if s.interrupted() {
			return errInterrupted
		}
		raw, err := r.Inode(ino)
		if err != nil {
			bad = firstError(bad, fmt.Errorf("%s: %w", p, err))
			return nil
		}
		dir := raw.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir
		if dir && (seen[ino] || depth > maxDepth) {
			bad = firstError(bad, fmt.Errorf("%s: directory %d has another name", p, ino))
			return nil
		}
		if err := fn(p, ino, raw); err != nil || !dir {
			return err
		}
		seen[ino] = true
		var stop error
		err = r.DirentsOf(ino, raw, 0, func(e *ext2fs.RawDirent) bool {
			if !isDots(e.Name) {
				stop = visit(joinPath(p, string(e.Name)), e.Ino, depth+1)
			}
			return stop == nil
		})
		bad = firstError(bad, err)
		return stop
	}
	return firstError(visit(name, ino, 0), bad)
}

// treeRoot returns the directory or file that a command is about.
func (s *session) treeRoot(w string) (*ext2fs.Raw, string, ondisk.Ino, error) {
	r, err := s.useRaw()
	if err != nil {
		return nil, "", 0, err
	}
	if w == "" {
		return r, pathOf(r, s.root, s.cwd), s.cwd, nil
	}
	ino, err := s.inode(w)
	return r, w, ino, err
}

func du(s *session, a *args) error {
	r, name, ino, err := s.treeRoot(a.word(0))
	if err != nil {
		return err
	}
	type dir struct {
		path string
		n    uint64 // of 512 bytes
	}
	var open []dir // the directories that the walk is in
	list := s.list()
	show := func(d dir) {
		if s.json {
			_ = list.add(map[string]any{"path": d.path, "bytes": d.n * 512}) // strings and numbers
		} else {
			fmt.Fprintf(s.out, "%d\t%s\n", (d.n+1)/2, cli.Clean(d.path))
		}
	}
	closeTo := func(n int) {
		for len(open) > n {
			d := open[len(open)-1]
			open = open[:len(open)-1]
			if len(open) > 0 {
				open[len(open)-1].n += d.n
			}
			if len(open) == 0 || !a.has("s") {
				show(d)
			}
		}
	}
	counted := map[ondisk.Ino]bool{}
	err = s.visitTree(r, name, ino, func(p string, ino ondisk.Ino, raw ondisk.RawInode) error {
		for len(open) > 1 && !strings.HasPrefix(p, strings.TrimSuffix(open[len(open)-1].path, "/")+"/") {
			closeTo(len(open) - 1)
		}
		n := r.Sectors(raw)
		if raw.Base().LinksCount.Get() > 1 && raw.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeDir {
			if counted[ino] {
				n = 0
			}
			counted[ino] = true
		}
		if len(open) == 0 || raw.Base().Mode.Get()&ondisk.ModeFmt == ondisk.ModeDir {
			open = append(open, dir{path: p})
		}
		open[len(open)-1].n += n
		return nil
	})
	closeTo(0)
	if s.json {
		list.end()
	}
	return err
}

// typeLetters are the types of files as find has them.
var typeLetters = map[string]uint16{"f": ondisk.ModeReg, "d": ondisk.ModeDir, "l": ondisk.ModeLnk, "b": ondisk.ModeBlk, "c": ondisk.ModeChr,
	"p": ondisk.ModeFIFO, "s": ondisk.ModeSock}

func findPaths(s *session, a *args) error {
	pattern, _ := a.value("n")
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("%s: %w", pattern, err)
	}
	letter, typed := a.value("t")
	want, ok := typeLetters[letter]
	if typed && !ok {
		return usagef("types are f, d, l, b, c, p and s")
	}
	r, name, ino, err := s.treeRoot(a.word(0))
	if err != nil {
		return err
	}
	list := s.list()
	err = s.visitTree(r, name, ino, func(p string, ino ondisk.Ino, raw ondisk.RawInode) error {
		if pattern != "" {
			if ok, _ := path.Match(pattern, path.Base(p)); !ok { // it was tried above
				return nil
			}
		}
		if typed && raw.Base().Mode.Get()&ondisk.ModeFmt != want {
			return nil
		}
		if s.json {
			return list.add(struct {
				Path string     `json:"path"`
				Ino  ondisk.Ino `json:"ino"`
				*inodeAttr
			}{p, ino, attrOf(r, raw)})
		}
		fmt.Fprintln(s.out, cli.Clean(p))
		return nil
	})
	if s.json {
		list.end()
	}
	return err
}

// longestLine bounds the lines that grep looks at; longer ones are cut.
const longestLine = 1 << 20

func grep(s *session, a *args) error {
	text := a.word(0)
	if a.has("i") {
		text = "(?i)" + text
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return err
	}
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	list := s.list()
	var bad error
	for _, w := range a.words[1:] {
		ino, err := s.inode(w)
		if err != nil {
			return err
		}
		err = s.visitTree(r, w, ino, func(p string, ino ondisk.Ino, raw ondisk.RawInode) error {
			if raw.Base().Mode.Get()&ondisk.ModeFmt != ondisk.ModeReg {
				return nil
			}
			f, err := r.FileOf(ino, raw)
			if err == nil {
				err = s.grepFile(p, f, re, a.has("l"), list)
			}
			if err != nil && !errors.Is(err, errInterrupted) {
				bad = firstError(bad, fmt.Errorf("%s: %w", p, err))
				return nil
			}
			return err
		})
		if err != nil {
			bad = firstError(bad, err)
		}
	}
	if s.json {
		list.end()
	}
	return bad
}

func (s *session) grepFile(p string, f *ext2fs.RawFile, re *regexp.Regexp, namesOnly bool, list *jsonList) error {
	n := 0
	found := errors.New("found")
	line := func(b []byte) error {
		n++
		if !re.Match(b) {
			return nil
		}
		switch {
		case s.json:
			if err := list.add(map[string]any{"path": p, "line": n, "text": string(b)}); err != nil {
				return err
			}
		case namesOnly:
			fmt.Fprintln(s.out, cli.Clean(p))
		case !printableText(b):
			fmt.Fprintf(s.out, "%s: binary file matches\n", cli.Clean(p))
		default:
			fmt.Fprintf(s.out, "%s:%s\n", cli.Clean(p), cli.Clean(string(b)))
			return nil
		}
		return found
	}
	var rest []byte
	w := writerFunc(func(b []byte) (int, error) {
		size := len(b)
		for {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				break
			}
			l := append(rest, b[:i]...)
			rest, b = rest[:0], b[i+1:]
			if err := line(l); err != nil {
				return 0, err
			}
		}
		rest = append(rest, b[:min(len(b), longestLine-min(len(rest), longestLine))]...)
		return size, nil
	})
	err := copyHoles(w, f, s.interrupted)
	if err == nil && len(rest) > 0 {
		err = line(rest)
	}
	if errors.Is(err, found) {
		err = nil
	}
	return err
}

// copyHoles writes the content of f, of each hole one byte: nobody looks for
// what is in it, and it may be without end.
func copyHoles(w writerFunc, f *ext2fs.RawFile, stop func() bool) error {
	buf := make([]byte, min(copyChunk, f.Size()))
	for off := int64(0); off < f.Size(); {
		if stop() {
			return errInterrupted
		}
		data, n, err := f.Segment(off)
		if err != nil {
			return err
		}
		p := []byte{0}
		if data {
			p = buf[:min(int64(len(buf)), n)]
			if k, err := f.ReadAt(p, off); err != nil && !isEOF(err) {
				return fmt.Errorf("at byte %d: %w", off+int64(k), err)
			}
			n = int64(len(p))
		}
		if _, err := w(p); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func printableText(b []byte) bool { return bytes.IndexByte(b, 0) < 0 }

// diff compares the trees of two file systems, entry by entry. It fails if they
// differ, as diff(1) does.
func diff(s *session, a *args) error {
	r, name, ino, err := s.treeRoot(a.word(1))
	if err != nil {
		return err
	}
	dev, err := blockdev.Open(a.word(0), blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		return err
	}
	defer dev.Close()
	o := newSession(s.in, s.stdout, s.err)
	o.interrupted = s.interrupted
	if err := o.attach(dev, a.word(0), openOpts{noCsum: s.opts.noCsum}); err != nil {
		return err
	}
	other := ondisk.RootIno
	if name != "/" {
		if other, err = o.lookup("/"+strings.TrimPrefix(name, "/"), false); err != nil {
			return err
		}
	}
	d := &treeDiff{s: s, a: r, b: o.raw, seen: map[ondisk.Ino]bool{}, list: s.list()}
	err = d.compare(name, ino, other)
	if s.json {
		d.list.end()
	}
	if err == nil && d.n > 0 {
		err = fmt.Errorf("%d differences", d.n)
	}
	return err
}

type treeDiff struct {
	s    *session
	a, b *ext2fs.Raw
	seen map[ondisk.Ino]bool
	list *jsonList
	n    int
}

func (d *treeDiff) tell(p, what string) {
	d.n++
	if d.s.json {
		_ = d.list.add(map[string]any{"path": p, "what": what}) // strings
		return
	}
	fmt.Fprintf(d.s.out, "%s: %s\n", cli.Clean(p), what)
}

func (d *treeDiff) compare(p string, x, y ondisk.Ino) error {
	if d.s.interrupted() {
		return errInterrupted
	}
	ra, err := d.a.Inode(x)
	if err != nil {
		return err
	}
	rb, err := d.b.Inode(y)
	if err != nil {
		return err
	}
	ma, mb := ra.Base().Mode.Get(), rb.Base().Mode.Get()
	if ma != mb {
		d.tell(p, fmt.Sprintf("mode %06o, %06o", ma, mb))
		if ma&ondisk.ModeFmt != mb&ondisk.ModeFmt {
			return nil
		}
	}
	if ra.UID() != rb.UID() || ra.GID() != rb.GID() {
		d.tell(p, fmt.Sprintf("owner %d:%d, %d:%d", ra.UID(), ra.GID(), rb.UID(), rb.GID()))
	}
	xa, err1 := d.a.Xattrs(x, ra)
	xb, err2 := d.b.Xattrs(y, rb)
	if err := firstError(err1, err2); err != nil {
		d.tell(p, err.Error())
	} else if !d.sameXattrs(xa, xb) {
		d.tell(p, "extended attributes")
	}
	switch ma & ondisk.ModeFmt {
	case ondisk.ModeDir:
		if d.seen[x] {
			return nil
		}
		d.seen[x] = true
		return d.directories(p, x, y)
	case ondisk.ModeReg, ondisk.ModeLnk:
		if ra.Mtime() != rb.Mtime() && ma&ondisk.ModeFmt == ondisk.ModeReg {
			d.tell(p, "time of modification")
		}
		return d.contents(p, x, y, ra, rb)
	case ondisk.ModeBlk, ondisk.ModeChr:
		a1, a2 := deviceNumber(ra)
		if b1, b2 := deviceNumber(rb); a1 != b1 || a2 != b2 {
			d.tell(p, fmt.Sprintf("device %d:%d, %d:%d", a1, a2, b1, b2))
		}
	}
	return nil
}

func (d *treeDiff) sameXattrs(a, b []ext2fs.RawXattr) bool {
	values := func(r *ext2fs.Raw, list []ext2fs.RawXattr) map[string]string {
		m := map[string]string{}
		for i := range list {
			if list[i].Index == ondisk.XattrSystemIndex {
				continue
			}
			v, err := r.XattrValue(&list[i])
			if err != nil {
				v = []byte(err.Error())
			}
			m[list[i].Name] = string(v)
		}
		return m
	}
	va, vb := values(d.a, a), values(d.b, b)
	if len(va) != len(vb) {
		return false
	}
	for k, v := range va {
		if w, ok := vb[k]; !ok || w != v {
			return false
		}
	}
	return true
}

func entriesOf(r *ext2fs.Raw, dir ondisk.Ino) (names []string, m map[string]ondisk.Ino, err error) {
	m = map[string]ondisk.Ino{}
	err = r.Dirents(dir, 0, func(e *ext2fs.RawDirent) bool {
		if n := string(e.Name); !isDots(e.Name) {
			if _, ok := m[n]; !ok {
				names = append(names, n)
			}
			m[n] = e.Ino
		}
		return len(names) < maxRuns
	})
	return names, m, err
}

func (d *treeDiff) directories(p string, x, y ondisk.Ino) error {
	names, ma, err := entriesOf(d.a, x)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	others, mb, err := entriesOf(d.b, y)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	for _, n := range names {
		q := joinPath(p, n)
		if y, ok := mb[n]; !ok {
			d.tell(q, "only here")
		} else if err := d.compare(q, ma[n], y); err != nil {
			return err
		}
	}
	for _, n := range others {
		if _, ok := ma[n]; !ok {
			d.tell(joinPath(p, n), "only there")
		}
	}
	return nil
}

func (d *treeDiff) contents(p string, x, y ondisk.Ino, ra, rb ondisk.RawInode) error {
	fa, err1 := d.a.FileOf(x, ra)
	fb, err2 := d.b.FileOf(y, rb)
	if err := firstError(err1, err2); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if fa.Size() != fb.Size() {
		d.tell(p, fmt.Sprintf("size %d, %d", fa.Size(), fb.Size()))
		return nil
	}
	bufA, bufB := make([]byte, min(copyChunk, fa.Size())), make([]byte, min(copyChunk, fa.Size()))
	for off := int64(0); off < fa.Size(); {
		if d.s.interrupted() {
			return errInterrupted
		}
		dataA, na, err1 := fa.Segment(off)
		dataB, nb, err2 := fb.Segment(off)
		if err := firstError(err1, err2); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		n := min(na, nb)
		if dataA || dataB {
			n = min(n, int64(len(bufA)))
			_, err1 = fa.ReadAt(bufA[:n], off)
			_, err2 = fb.ReadAt(bufB[:n], off)
			for _, err := range []error{err1, err2} {
				if err != nil && !isEOF(err) {
					return fmt.Errorf("%s: %w", p, err)
				}
			}
			if !bytes.Equal(bufA[:n], bufB[:n]) {
				d.tell(p, "content")
				return nil
			}
		}
		off += n
	}
	return nil
}
