package iomappeer

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// An Expectation is what a crash must leave of the files of a Kernel.
type Expectation struct{ files []expectFile }

type expectFile struct {
	ino     uint64
	paths   []string
	must    bool // one of the names is safe
	img     image
	unknown spans
	changes []change
	size    int64
}

// A Recovered file system is what is left after a crash, as some other reader of
// it sees it. Open fails with an error that is fs.ErrNotExist if there is no such
// path; the inode number may be 0 if the reader does not know it.
type Recovered interface {
	Open(path string) (r io.ReaderAt, size int64, ino uint64, err error)
}

// Expect returns what a crash at this moment must leave, and what it may: of each
// byte the value that was safe and all that were written since. It may be called
// while operations go on; what completes later is not in it, so it is for a device
// whose state is taken at the same moment, or after Crash.
func (k *Kernel) Expect() *Expectation {
	e := &Expectation{}
	for _, in := range k.allInodes() {
		if in.dir || in.Mode()&0o170000 != 0o100000 {
			continue
		}
		in.mu.Lock()
		must := !in.renamed && in.nlink > 0
		names := slices.Clone(in.names)
		ino := in.attrIno
		in.mu.Unlock()
		f := expectFile{ino: ino}
		for _, n := range names {
			p, settled := k.path(n)
			f.paths = append(f.paths, p)
			must = must && settled
		}
		m := in.model
		m.mu.Lock()
		f.must = must && m.durSaved && len(names) > 0
		f.img = make(image)
		for i, page := range m.durable {
			c := *page
			f.img[i] = &c
		}
		f.unknown = slices.Clone(m.durUnk)
		f.changes = slices.Clone(m.changes)
		f.size = m.durSize
		m.mu.Unlock()
		e.files = append(e.files, f)
	}
	return e
}

// path returns the path of a name, and whether the folders on it stay where they
// are in a crash.
func (k *Kernel) path(n dname) (string, bool) {
	parts := []string{n.name}
	settled := true
	for node := n.parent; node != k.root.nodeid; {
		dir := k.inode(node)
		if dir == nil {
			return "", false
		}
		dir.mu.Lock()
		if len(dir.names) == 0 {
			dir.mu.Unlock()
			return "", false
		}
		settled = settled && !dir.renamed
		up := dir.names[0]
		dir.mu.Unlock()
		parts = append(parts, up.name)
		node = up.parent
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/"), settled
}

// Files returns how many files are expected, and how many of them must be there.
func (e *Expectation) Files() (all, must int) {
	for _, f := range e.files {
		if f.must {
			must++
		}
	}
	return len(e.files), must
}

// Check compares a recovered file system with the expectation. It returns a
// message for each file that lost what was synced, or shows what was never
// written to it.
func (e *Expectation) Check(r Recovered) []string {
	var out []string
	for _, f := range e.files {
		found := false
		for _, p := range f.paths {
			if p == "" {
				continue
			}
			rd, size, ino, err := r.Open(p)
			if err != nil || ino != 0 && ino != f.ino {
				continue
			}
			found = true
			if msg := f.check(rd, size); msg != "" {
				out = append(out, fmt.Sprintf("%s: %s", p, msg))
			}
			break
		}
		if !found && f.must {
			out = append(out, fmt.Sprintf("%s: lost, but it was synced", strings.Join(f.paths, " or ")))
		}
	}
	return out
}

// check reads a recovered file and says what is wrong with it.
func (f *expectFile) check(rd io.ReaderAt, size int64) string {
	lo, hi := f.size, f.size
	for _, c := range f.changes {
		lo, hi = min(lo, c.size), max(hi, c.size)
	}
	if size < lo || size > hi {
		return fmt.Sprintf("has %d bytes, want %d to %d", size, lo, hi)
	}
	var zeros [pageSize]byte
	for at := int64(0); at < size; at += pageSize {
		want := f.img[at/pageSize]
		if want == nil {
			want = &zeros
		}
		n := min(size-at, pageSize)
		got := make([]byte, n)
		if c, err := rd.ReadAt(got, at); int64(c) < n {
			return fmt.Sprintf("reading at %d: %v", at, err)
		}
		if bytes.Equal(got, want[:n]) {
			continue
		}
		for i, b := range got {
			if b == want[i] || f.allowed(at+int64(i), b) {
				continue
			}
			if b == 0 {
				return fmt.Sprintf("byte %d is lost: it was synced as %#02x", at+int64(i), want[i])
			}
			return fmt.Sprintf("byte %d is stale: %#02x was never written there, or not since %#02x was synced", at+int64(i), b,
				want[i])
		}
	}
	return ""
}

// allowed reports whether a byte was written since the last sync, or is not known.
func (f *expectFile) allowed(off int64, b byte) bool {
	if f.unknown.has(off) {
		return true
	}
	for _, c := range f.changes {
		if off < c.from || off >= c.to {
			continue
		}
		if c.unknown || c.data == nil && b == 0 || c.data != nil && c.data[off-c.from] == b {
			return true
		}
	}
	return false
}
