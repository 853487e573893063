package ondisk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"testing"
)

// testdata/htree-1k.bin is the start of a directory that the kernel made: root
// and two leaves of 1 KiB, in a file system of this UUID and hash seed.
var htreeSample = func() (s struct {
	seed     uint32
	hashSeed HashSeed
}) {
	uuid, _ := hex.DecodeString("0123456789abcdef0123456789abcdef")
	s.seed = InodeSeed(Crc32c(^uint32(0), uuid), 12, 516688841)
	b, _ := hex.DecodeString("fedcba9876543210fedcba9876543210")
	for i := range s.hashSeed {
		s.hashSeed[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return s
}()

func readSample(t testing.TB) []byte {
	b, err := os.ReadFile("testdata/htree-1k.bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDirHashVectors(t *testing.T) {
	f, err := os.Open("testdata/dirhash.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if s.Text()[0] == '#' {
			continue
		}
		var version uint8
		var seedHex, nameHex string
		var major, minor uint32
		if _, err := fmt.Sscanf(s.Text(), "%d %s %s 0x%x 0x%x", &version, &seedHex, &nameHex, &major, &minor); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		raw, _ := hex.DecodeString(seedHex)
		name, _ := hex.DecodeString(nameHex)
		var sb Super
		for i := range sb.HashSeed {
			copy(sb.HashSeed[i][:], raw[4*i:])
		}
		seed := sb.DirHashSeed()
		a, b, ok := DirHash(version, &seed, name)
		if !ok || a != major || b != minor {
			t.Errorf("version %d of %q: %#x %#x, want %#x %#x", version, name, a, b, major, minor)
		}
		n++
	}
	if n < 100 {
		t.Fatalf("%d vectors", n)
	}
}

func TestRecLen(t *testing.T) {
	for _, c := range []struct {
		n, blockSize int
		stored       uint16
	}{
		{12, 1024, 12}, {1024, 1024, 1024}, {32768, 32768, 32768},
		{65536, 65536, 65535}, {65524, 65536, 65524}, {12, 65536, 12},
	} {
		if got := EncodeRecLen(c.n, c.blockSize); got != c.stored {
			t.Errorf("EncodeRecLen(%d, %d) = %d", c.n, c.blockSize, got)
		}
		if got := RecLen(c.stored, c.blockSize); got != c.n {
			t.Errorf("RecLen(%d, %d) = %d", c.stored, c.blockSize, got)
		}
	}
	if got := RecLen(0, 65536); got != 65536 {
		t.Errorf("RecLen(0, 65536) = %d", got)
	}
}

func TestKernelBlocks(t *testing.T) {
	all := readSample(t)
	for i := range 3 {
		b := all[i<<10:][:1<<10]
		if err := VerifyDirBlock(b, true, htreeSample.seed); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		again := bytes.Clone(b)
		if i == 0 {
			binary.LittleEndian.PutUint32(again[1020:], 0)
		} else {
			InitDirTail(again)
		}
		SealDirBlock(again, htreeSample.seed)
		if !bytes.Equal(b, again) {
			t.Fatalf("block %d: sealed to other bytes", i)
		}
		again[9]++
		var ce *CorruptError
		if err := VerifyDirBlock(again, true, htreeSample.seed); !errors.As(err, &ce) || !ce.Csum {
			t.Fatalf("block %d with a changed byte: %v", i, err)
		}
	}
}

// Every name of the leaves must have the hash that its place in the index says.
func TestKernelIndex(t *testing.T) {
	all := readSample(t)
	root := all[:1<<10]
	info, err := DxRoot(root, false)
	if err != nil {
		t.Fatal(err)
	}
	entries, limit, err := DxEntries(root, DxRootOff, true)
	if err != nil || limit != 123 {
		t.Fatalf("limit %d, %v", limit, err)
	}
	names := 0
	for blk := 1; blk < 3; blk++ {
		leaf := all[blk<<10:][:1<<10]
		for off := 0; off < len(leaf)-DirTailSize; {
			e, err := DirentAt(leaf[:len(leaf)-DirTailSize], off, len(leaf))
			if err != nil {
				t.Fatal(err)
			}
			off += e.RecLen
			if e.Ino == 0 {
				continue
			}
			names++
			h, _, _ := DirHash(info.HashVersion[0], &htreeSample.hashSeed, e.Name)
			if got := entries[DxFind(entries, h)].Lblk(); got != Lblk(blk) {
				t.Errorf("%q, hash %#x, is in block %d, index says %d", e.Name, h, blk, got)
			}
			f, prev, found, err := FindDirent(leaf[:len(leaf)-DirTailSize], e.Name, len(leaf))
			if err != nil || !found || f.Off != e.Off || f.Ino != e.Ino || prev >= e.Off {
				t.Errorf("FindDirent(%q) = %+v, %d, %v, %v", e.Name, f, prev, found, err)
			}
		}
	}
	if names < 40 {
		t.Fatalf("%d names", names)
	}
}

func TestHostileDirents(t *testing.T) {
	block := func(change func(b []byte)) []byte {
		b := make([]byte, 1024)
		PutDirent(b, 0, 12, 1024, []byte("."), 2, FTDir)
		PutDirent(b, 12, 12, 1024, []byte(".."), 2, FTDir)
		PutDirent(b, 24, 1000, 1024, []byte("name"), 12, FTReg)
		change(b)
		return b
	}
	for name, b := range map[string][]byte{
		"zero length":        block(func(b []byte) { SetRecLen(b, 24, 0, 1024) }),
		"short":              block(func(b []byte) { SetRecLen(b, 24, 8, 1024) }),
		"odd length":         block(func(b []byte) { SetRecLen(b, 12, 13, 1024) }),
		"past the end":       block(func(b []byte) { SetRecLen(b, 24, 1004, 1024) }),
		"close to the end":   block(func(b []byte) { SetRecLen(b, 24, 992, 1024) }),
		"name past its room": block(func(b []byte) { b[12+6] = 200 }),
		"no name":            block(func(b []byte) { b[24+6] = 0 }),
	} {
		if err := CheckDirents(b, 1024); !errors.Is(err, EUCLEAN) {
			t.Errorf("%s: %v", name, err)
		}
		for _, n := range []string{"name", "none", ".."} {
			FindDirent(b, []byte(n), 1024)
		}
	}
	if err := CheckDirents(block(func([]byte) {}), 1024); err != nil {
		t.Error(err)
	}
}

func FuzzDirBlock(f *testing.F) {
	all := readSample(f)
	for i := range 3 {
		f.Add(all[i<<10:][:1<<10], []byte("file-00001"))
	}
	f.Fuzz(func(t *testing.T, b, name []byte) {
		bs := 1024
		for _, n := range []int{4096, 65536} {
			if len(b) >= n {
				bs = n
			}
		}
		if len(b) < bs {
			b = append(b, make([]byte, bs-len(b))...)
		}
		b = b[:bs]
		VerifyDirBlock(b, true, 1)
		ok := VerifyDirBlock(b, false, 0) == nil
		e, prev, found, err := FindDirent(b, name, bs)
		if found && (err != nil || !bytes.Equal(e.Name, name) || e.Off+e.RecLen > bs || prev >= e.Off) {
			t.Fatalf("found %+v after %d: %v", e, prev, err)
		}
		if ok && err != nil {
			t.Fatalf("verified, but %v", err)
		}
		DxRoot(b, true)
		DxNode(b)
		for _, off := range []int{DxRootOff, DxNodeOff} {
			for _, csum := range []bool{false, true} {
				if es, limit, err := DxEntries(b, off, csum); err == nil {
					if i := DxFind(es, binary.LittleEndian.Uint32(b)); i < 0 || i >= len(es) || len(es) > limit {
						t.Fatalf("entry %d of %d", i, len(es))
					}
				}
			}
		}
		SealDirBlock(b, 1)
		if t2 := dirTail(b); t2 != nil && ok && dxCountOffset(b) == 0 {
			if CheckDirents(b[:bs-DirTailSize], bs) == nil {
				if err := VerifyDirBlock(b, true, 1); err != nil {
					t.Fatalf("sealed, but %v", err)
				}
			}
		}
	})
}

func BenchmarkDirHash(b *testing.B) {
	name := []byte("file-name-of-20-byte")
	for v, s := range []string{"legacy", "half_md4", "tea"} {
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				DirHash(uint8(v), &htreeSample.hashSeed, name)
			}
		})
	}
}

func BenchmarkFindDirent(b *testing.B) {
	blk := make([]byte, 4096)
	for off := 0; off < 4096; off += 32 {
		PutDirent(blk, off, 32, 4096, fmt.Appendf(nil, "file-%06d", off), 12, FTReg)
	}
	b.ReportAllocs()
	for b.Loop() {
		FindDirent(blk, []byte("file-004064"), 4096)
	}
}
