package populate

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tinyStore keeps as little in memory as it can.
func tinyStore(t testing.TB) *store {
	return newStore(1, func() (*os.File, error) { return os.Create(filepath.Join(t.TempDir(), "pages")) })
}

// A btree has what a map has, in order, though most of it is not in memory.
func TestBtree(t *testing.T) {
	for _, order := range []string{"random", "up", "down", "long"} {
		t.Run(order, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			s := tinyStore(t)
			tree, want := &s.names, map[string]uint64{}
			key := func(i int) string {
				switch order {
				case "up":
					return fmt.Sprintf("%08d", i)
				case "down":
					return fmt.Sprintf("%08d", 1<<20-i)
				case "long":
					return strings.Repeat(string(rune('a'+rnd.IntN(26))), 200+rnd.IntN(maxKey-208+1)) + fmt.Sprintf("%08x", rnd.Uint32())
				}
				return fmt.Sprintf("%x", rnd.Uint64N(1<<uint(8+rnd.IntN(30))))
			}
			for i := range 30000 {
				k := key(i)
				if rnd.IntN(4) == 0 { // one that is there, most times
					tree.scan([]byte(k), func(b []byte, _ uint64) bool { k = string(b); return false })
					delete(want, k)
					if err := tree.remove([]byte(k)); err != nil {
						t.Fatal(err)
					}
					continue
				}
				v := rnd.Uint64()
				want[k] = v
				if err := tree.set([]byte(k), v); err != nil {
					t.Fatal(err)
				}
			}
			if s.pages.file == nil {
				t.Error("everything stayed in memory")
			}
			keys := slices.Sorted(maps.Keys(want))
			i := 0
			err := tree.scan(nil, func(k []byte, v uint64) bool {
				if i >= len(keys) || string(k) != keys[i] || v != want[keys[i]] {
					t.Fatalf("key %d is %q", i, k)
				}
				i++
				return true
			})
			if err != nil || i != len(keys) {
				t.Fatalf("%d of %d keys: %v", i, len(keys), err)
			}
			for range 1000 {
				k := keys[rnd.IntN(len(keys))]
				if v, ok, err := tree.get([]byte(k)); err != nil || !ok || v != want[k] {
					t.Fatalf("%q is %d, %v, %v, not %d", k, v, ok, err, want[k])
				}
				if _, ok, err := tree.get([]byte(k + "/")); ok || err != nil {
					t.Fatalf("%q/ is there: %v", k, err)
				}
			}
		})
	}
}

// What is kept comes back as it was, wherever it lies.
func TestStore(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	s := tinyStore(t)
	var nodes []node
	var texts [][]byte
	var refs []ref
	for i := range 20000 {
		n := node{mode: uint16(i), links: rnd.Uint32(), uid: rnd.Uint32(), gid: rnd.Uint32(), rdev: rnd.Uint32(), blob: rnd.Uint32(),
			size: rnd.Int64(), at: rnd.Int64(), aux: ref(rnd.Uint64()), attrs: ref(rnd.Uint64()), implied: i%2 == 0, fixed: i%3 == 0}
		n.atime.Sec, n.mtime.Sec, n.atime.Nsec, n.mtime.Nsec = -rnd.Int64(), rnd.Int64(), rnd.Uint32(), rnd.Uint32()
		id, err := s.addNode(&n)
		if err != nil || int(id) != i+2 {
			t.Fatal(id, err)
		}
		nodes = append(nodes, n)
		text := make([]byte, rnd.IntN(200)*(1+i%100/99*50))
		for j := 0; j+8 <= len(text); j += 8 {
			binary.LittleEndian.PutUint64(text[j:], rnd.Uint64())
		}
		r, err := s.appendBytes(text)
		if err != nil {
			t.Fatal(err)
		}
		texts, refs = append(texts, text), append(refs, r)
	}
	round := s.newRound()
	for _, i := range rnd.Perm(len(nodes)) {
		id := nodeID(i + 2)
		if first, err := s.visit(id, round); !first || err != nil {
			t.Fatalf("node %d was visited: %v", id, err)
		}
		if first, err := s.visit(id, round); first || err != nil {
			t.Fatalf("node %d was not visited: %v", id, err)
		}
		if no, err := s.number(id, round); no != 0 || err != nil {
			t.Fatalf("node %d has number %d, %v", id, no, err)
		}
		if err := s.setNumber(id, round, uint32(i)+5); err != nil {
			t.Fatal(err)
		}
		if n, err := s.getNode(id); n != nodes[i] || err != nil {
			t.Fatalf("node %d is %+v, %v, not %+v", id, n, err, nodes[i])
		}
		if no, err := s.number(id, round); no != uint32(i)+5 || err != nil {
			t.Fatalf("node %d has number %d, %v", id, no, err)
		}
		if b, err := s.bytes(refs[i]); !bytes.Equal(b, texts[i]) || err != nil {
			t.Fatalf("text %d of %d bytes is another one of %d, %v", i, len(texts[i]), len(b), err)
		}
	}
}

// A map of a sparse file of any length comes back.
func TestSegs(t *testing.T) {
	tree := newTree(Options{Memory: 1})
	defer tree.Close()
	for _, k := range []int{0, 1, segPart - 1, segPart, segPart + 1, 5*segPart + 3} {
		w := segWriter{s: tree.store}
		var want []seg
		for i := range int64(k) {
			r := seg{i * 1 << 30, 4096, i * 4096}
			if err := w.add(r); err != nil {
				t.Fatal(err)
			}
			r.at += 512
			want = append(want, r)
		}
		n := node{mode: 0o100644, size: 1 << 50, at: 512}
		var err error
		if n.aux, err = w.end(); err != nil || n.aux == 0 {
			t.Fatal(n.aux, err)
		}
		var got []seg
		if err := tree.data(&n, func(s seg) error { got = append(got, s); return nil }); err != nil || !slices.Equal(got, want) {
			t.Errorf("%d ranges, %v; wanted %d", len(got), err, len(want))
		}
	}
}

// An archive whose tree is not in memory makes the tree that it makes otherwise;
// a place for it that has no room is told.
func TestSpill(t *testing.T) {
	var list []tar.Header
	for i := range 12000 {
		d := fmt.Sprintf("d%d/", i%7)
		list = append(list, tar.Header{Name: d + fmt.Sprintf("%x", i*i), Uid: i, PAXRecords: map[string]string{"SCHILY.xattr.user.no": fmt.Sprint(i)}},
			tar.Header{Name: d + fmt.Sprintf("h%d", i%5000), Typeflag: tar.TypeLink, Linkname: d + fmt.Sprintf("%x", i*i)},
			tar.Header{Name: d + fmt.Sprintf("s%d", i), Typeflag: tar.TypeSymlink, Linkname: fmt.Sprint(i)})
	}
	b := tarOf(t, list...)
	o := Options{Exclude: []string{"*7"}, Owner: &Owner{1, 2}}
	all := loadTar(t, b, o)
	o.Memory, o.TempDir = 1, t.TempDir()
	few := loadTar(t, b, o)
	if all.pages.file != nil || few.pages.file == nil {
		t.Fatal("one tree is to be in memory, the other one not")
	}
	checkTree(t, few)
	want, err1 := all.Digest()
	got, err2 := few.Digest()
	if got != want || err1 != nil || err2 != nil {
		t.Errorf("the digest is %x, %v, not %x, %v", got, err2, want, err1)
	}
	if all.Inodes() != few.Inodes() || all.Entries() != few.Entries() {
		t.Errorf("%d inodes, %d entries; not %d, %d", few.Inodes(), few.Entries(), all.Inodes(), all.Entries())
	}
	o.TempDir = filepath.Join(o.TempDir, "none")
	in, err := os.Create(filepath.Join(t.TempDir(), "tar")) // a file is not unpacked to TempDir
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	var e *TempError
	if _, err := Load(t.Context(), TarReader(in), o); !errors.As(err, &e) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no place for temporary files: %v", err)
	}
}

// That there is no room for the tree is not that the file system has none: a
// size that is looked for would grow.
func TestSpillNoRoom(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no device that is full: ", err)
	}
	defer full.Close()
	s := newStore(1, func() (*os.File, error) { return full, nil })
	for range 1 << 20 {
		if _, err = s.addNode(&node{}); err != nil {
			break
		}
	}
	var e *TempError
	if !errors.As(err, &e) || errors.Is(err, syscall.ENOSPC) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "no space") {
		t.Errorf("no room for temporary files: %v", err)
	}
}

// A hard link that takes the place of the directory that its file is in.
func TestLinkOverParent(t *testing.T) {
	tree := loadTar(t, tarOf(t, tar.Header{Name: "d/f", Size: 5}, tar.Header{Name: "d", Typeflag: tar.TypeLink, Linkname: "d/f"}), Options{})
	checkTree(t, tree)
	if n := nodeAt(t, tree, "d"); n.size != 5 || n.links != 1 || tree.Entries() != 1 {
		t.Errorf("%d entries, d is %+v", tree.Entries(), n)
	}
}
