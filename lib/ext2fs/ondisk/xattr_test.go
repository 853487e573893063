package ondisk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/e2kit/e2kit/lib/endian"
)

// kernelXattrBlock is block 1202 of a file system with 1 KiB blocks, made by a
// 6.18 kernel: a value in inode 14, a name with bytes above 127, an ACL and an
// empty value.
func kernelXattrBlock(t testing.TB) (b []byte, seed uint32) {
	t.Helper()
	b = make([]byte, 1024)
	head, err := hex.DecodeString(
		"000002ea01000000010000003a22bd9949426187000000000000000000000000030100000e000000b80b0000fdde3be2" +
			"626967000501f003000000000b0000004a600681616c7068610000000501fc030000000002000000f537c51d6ec3a46d" +
			"650000000002cc0300000000240000006e00cd04050400000000000000000000f94e6706656d70747900000000000000")
	if err != nil {
		t.Fatal(err)
	}
	tail, err := hex.DecodeString(
		"00000000010000000100060002000600d204000004000400080004004d000000100006002000040068656c6c6f20776f" +
			"726c640076310000")
	if err != nil {
		t.Fatal(err)
	}
	copy(b, head)
	copy(b[len(b)-len(tail):], tail)
	uuid, _ := hex.DecodeString("11111111222233334444555555555555")
	return b, Crc32c(^uint32(0), uuid)
}

func TestXattrBlockOfKernel(t *testing.T) {
	b, seed := kernelXattrBlock(t)
	if err := VerifyXattrBlock(b, 1202, seed, true, 1024); err != nil {
		t.Fatal(err)
	}
	if err := VerifyXattrBlock(b, 1203, seed, true, 1024); !errors.Is(err, EBADMSG) {
		t.Errorf("in another block: %v", err)
	}
	if err := VerifyXattrBlock(b, 1202, seed, true, 0); !errors.Is(err, EUCLEAN) {
		t.Errorf("without ea_inode: %v", err)
	}
	a := XattrBlock(b)
	var names []string
	for off := a.First(); !a.Last(off); off = a.Next(off) {
		names = append(names, fmt.Sprintf("%d %s", a.Entry(off).NameIndex[0], a.Name(off)))
		if err := a.CheckHash(off); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(names); got != "[1 big 1 alpha 1 n\xc3\xa4me 2  4 empty]" {
		t.Errorf("names %q", got)
	}
	off, ok := a.Find(XattrUserIndex, "big", true)
	if v := XattrValueHash(seed, bytes.Repeat([]byte("x"), 3000)); !ok || v != 0x677cdefc ||
		a.Entry(off).Hash.Get() != XattrInumHash([]byte("big"), v) {
		t.Errorf("value hash %#x", v)
	}
	off, ok = a.Find(XattrACLAccessIndex, "", true)
	if !ok {
		t.Fatal("no acl")
	}
	acl, err := ParseACL(a.Value(off))
	if err != nil || !acl.Valid() || len(acl) != 6 || acl[1] != (ACLEntry{ACLUser, 6, 1234}) {
		t.Errorf("acl %v, %v", acl, err)
	}
	if !bytes.Equal(acl.AppendDisk(nil), a.Value(off)) {
		t.Error("acl does not encode to the same bytes")
	}

	// Built anew it has the same hashes and the same header.
	c := make([]byte, 1024)
	InitXattrBlock(c)
	d := XattrBlock(c)
	for off := a.First(); !a.Last(off); off = a.Next(off) {
		v := XattrValue{Data: a.Value(off)}
		if e := a.Entry(off); e.ValueInum.Get() != 0 {
			v = XattrValue{Inum: 14, Size: 3000, Hash: 0x677cdefc}
		}
		at, found := d.Find(a.b[off+1], string(a.Name(off)), true)
		if err := d.Set(at, found, a.b[off+1], string(a.Name(off)), v, true); err != nil {
			t.Fatal(err)
		}
	}
	RehashXattrBlock(c)
	SealXattrBlock(c, 1202, seed)
	if !XattrEqual(a, d) {
		t.Error("not equal")
	}
	if x, y := endian.View[XattrHeader](b), endian.View[XattrHeader](c); x.Hash != y.Hash {
		t.Errorf("header %x, want %x", y, x)
	}
	if err := VerifyXattrBlock(c, 1202, seed, true, 1024); err != nil {
		t.Error(err)
	}
}

func TestXattrHashSigned(t *testing.T) {
	if n := []byte("plain"); XattrHash(n, nil) != XattrHashSigned(n, nil) {
		t.Error("differ for ASCII")
	}
	n := []byte("n\xc3\xa4me")
	if XattrHash(n, nil) == XattrHashSigned(n, nil) || XattrInumHash(n, 7) == XattrInumHashSigned(n, 7) {
		t.Error("same for bytes above 127")
	}
	b := make([]byte, 1024)
	InitXattrBlock(b)
	a := XattrBlock(b)
	if err := a.Set(a.First(), false, 1, string(n), XattrValue{Data: []byte("abcd")}, true); err != nil {
		t.Fatal(err)
	}
	a.Entry(a.First()).Hash.Set(XattrHashSigned(n, []byte("abcd")))
	if err := a.CheckHash(a.First()); err != nil {
		t.Error(err)
	}
}

// TestXattrAreaModel sets and removes at random and compares with a map.
func TestXattrAreaModel(t *testing.T) {
	for _, size := range []int{92, 1024, 65536} {
		rnd := rand.New(rand.NewPCG(uint64(size), 1))
		b := make([]byte, size)
		inode := size == 92
		a := XattrArea{b, 0}
		if !inode {
			InitXattrBlock(b)
			a = XattrBlock(b)
		}
		model := map[string]string{}
		for step := range 3000 {
			name := fmt.Sprintf("%0*d", 1+rnd.IntN(3), rnd.IntN(size/40+1))
			key := string(rune('0'+1+rnd.IntN(3))) + name
			off, found := a.Find(key[0]-'0', name, !inode)
			if _, ok := model[key]; ok != found {
				t.Fatalf("step %d: find %q: %v", step, key, found)
			}
			if rnd.IntN(3) == 0 {
				if found {
					if err := a.Remove(off); err != nil {
						t.Fatal(err)
					}
					delete(model, key)
				}
			} else {
				v := XattrValue{Data: bytes.Repeat([]byte{byte(step)}, rnd.IntN(size/12))}
				if a.Fits(off, found, name, v, 0) {
					if err := a.Set(off, found, key[0]-'0', name, v, !inode); err != nil {
						t.Fatal(err)
					}
					model[key] = string(v.Data)
				}
			}
			if err := a.Check(0); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			n, last := 0, ""
			space := a.First() + 4
			for o := a.First(); !a.Last(o); o = a.Next(o) {
				key := string(rune('0'+a.b[o+1])) + string(a.Name(o))
				if v, ok := model[key]; !ok || v != string(a.Value(o)) {
					t.Fatalf("step %d: %q is %q, want %q", step, key, a.Value(o), v)
				}
				if !inode {
					order := fmt.Sprintf("%c %03d %s", key[0], len(key), key)
					if order <= last || a.CheckHash(o) != nil {
						t.Fatalf("step %d: %q after %q", step, order, last)
					}
					last = order
				}
				space += XattrLen(len(key)-1) + XattrPad(len(a.Value(o)))
				n++
			}
			if n != len(model) || a.Free() != len(b)-space {
				t.Fatalf("step %d: %d entries, want %d; %d free, want %d", step, n, len(model), a.Free(), len(b)-space)
			}
		}
	}
}

func TestInodeXattrs(t *testing.T) {
	r := make(RawInode, 256)
	if _, _, ok := InodeXattrs(r); ok {
		t.Error("space without i_extra_isize")
	}
	if _, _, ok := InodeXattrs(make(RawInode, 128)); ok {
		t.Error("space in 128 bytes")
	}
	ex := endian.View[InodeExtra](r[128:])
	ex.ExtraIsize.Set(28)
	a, used, ok := InodeXattrs(r)
	if !ok || used || len(a.b) != 256-128-28-4 {
		t.Fatal(used, ok, len(a.b))
	}
	InitInodeXattrs(r)
	for i, v := range []string{"abc", "", "defgh"} {
		off, found := a.Find(1, string(rune('a'+i)), false)
		if err := a.Set(off, found, 1, string(rune('a'+i)), XattrValue{Data: []byte(v)}, false); err != nil {
			t.Fatal(err)
		}
	}
	if !ExpandInodeExtra(r, 32, 0) || ex.ExtraIsize.Get() != 32 || ex.Projid.Get() != 0 || ExpandInodeExtra(r, 100, 0) {
		t.Error("expand")
	}
	a, used, _ = InodeXattrs(r)
	if !used || a.Check(0) != nil {
		t.Fatal("shift")
	}
	for i, v := range []string{"abc", "", "defgh"} {
		off, found := a.Find(1, string(rune('a'+i)), false)
		if !found || string(a.Value(off)) != v {
			t.Errorf("%c: %q", 'a'+i, a.Value(off))
		}
	}
	for !a.Empty() {
		if err := a.Remove(a.First()); err != nil {
			t.Fatal(err)
		}
	}
	SealInodeXattrs(r)
	if !bytes.Equal(r[160:], make([]byte, 96)) {
		t.Error("space not zero")
	}
}

func TestXattrOverlap(t *testing.T) {
	b := make([]byte, 1024)
	InitXattrBlock(b)
	a := XattrBlock(b)
	for _, n := range []string{"a", "b"} {
		off, _ := a.Find(1, n, true)
		if err := a.Set(off, false, 1, n, XattrValue{Data: []byte("12345678")}, true); err != nil {
			t.Fatal(err)
		}
	}
	off, _ := a.Find(1, "a", true)
	o2, _ := a.Find(1, "b", true)
	a.Entry(off).ValueOffs.Set(a.Entry(o2).ValueOffs.Get() + 4)
	if err := a.Check(0); err != nil {
		t.Fatal(err)
	}
	if err := a.Remove(o2); !errors.Is(err, EUCLEAN) {
		t.Errorf("remove: %v", err)
	}
}

func FuzzXattrBlock(f *testing.F) {
	b, _ := kernelXattrBlock(f)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 1024 || len(b) > 65536 {
			return
		}
		b = bytes.Clone(b) // the input is the fuzzer's
		if VerifyXattrBlock(b, 7, 0, false, 100) != nil {
			return
		}
		a := XattrBlock(b)
		var names []string
		for off := a.First(); !a.Last(off); off = a.Next(off) {
			_ = a.Value(off)
			_ = a.CheckHash(off)
			_, _ = ParseACL(a.Value(off))
			names = append(names, string(rune(a.b[off+1]))+string(a.Name(off)))
		}
		if !XattrEqual(a, a) || a.Free() < 0 {
			t.Fatal("equal, free")
		}
		RehashXattrBlock(b)
		for i, n := range names {
			off, found := a.Find(n[0], n[1:], false)
			if !found || i >= 16 {
				continue
			}
			v := XattrValue{Zero: i * 7}
			switch {
			case i&1 == 0:
				if a.Remove(off) != nil {
					return
				}
			case a.Fits(off, true, n[1:], v, 0):
				if a.Set(off, true, n[0], n[1:], v, true) != nil {
					return
				}
			}
			if err := a.Check(100); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzInodeXattrs(f *testing.F) {
	r := make(RawInode, 256)
	r[128] = 32
	InitInodeXattrs(r)
	f.Add([]byte(r))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 128 || len(b) > 4096 || len(b)&3 != 0 {
			return
		}
		b = bytes.Clone(b) // the input is the fuzzer's
		a, used, ok := InodeXattrs(b)
		if !ok || !used || a.Check(0) != nil {
			return
		}
		for !a.Empty() {
			if a.Remove(a.First()) != nil {
				return
			}
			if err := a.Check(0); err != nil {
				t.Fatal(err)
			}
		}
		SealInodeXattrs(b)
	})
}

func BenchmarkXattrSet(b *testing.B) {
	blk := make([]byte, 4096)
	InitXattrBlock(blk)
	a := XattrBlock(blk)
	keys := []string{"one", "two", "three", "four", "five"}
	sort.Strings(keys)
	val := make([]byte, 40)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := keys[i%len(keys)]
		off, found := a.Find(1, k, true)
		if err := a.Set(off, found, 1, k, XattrValue{Data: val}, true); err != nil {
			b.Fatal(err)
		}
	}
}
