package ondisk_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// image has real mke2fs make a small image, and returns its bytes.
func image(t *testing.T, args ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("mke2fs")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "image")
	args = append([]string{"-q", "-F", "-t", "ext4"}, append(args, path, "8M")...)
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs %v: %v\n%s", args, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMMP checks the block that mke2fs made.
func TestMMP(t *testing.T) {
	img := image(t, "-O", "mmp,metadata_csum", "-b", "4096")
	s := endian.View[ondisk.Super](img[ondisk.SuperOffset:])
	blk := img[s.MMPBlock.Get()*4096:]
	m := endian.View[ondisk.MMP](blk)
	if err := m.Verify(s.CsumSeed(), true); err != nil {
		t.Fatal(err)
	}
	if m.Seq.Get() != ondisk.MMPSeqClean {
		t.Fatalf("sequence %#x", m.Seq.Get())
	}
	was := m.Checksum
	m.NodeName[0]++
	if err := m.Verify(s.CsumSeed(), true); !errors.Is(err, ondisk.EBADMSG) {
		t.Fatal(err)
	}
	m.NodeName[0]--
	m.Seal(s.CsumSeed())
	if m.Checksum != was {
		t.Fatalf("checksum % x, not % x", m.Checksum, was)
	}
}

// TestOrphanBlock finds the blocks of an orphan file by their magic, and checks
// them.
func TestOrphanBlock(t *testing.T) {
	img := image(t, "-O", "orphan_file,metadata_csum", "-b", "1024", "-I", "256")
	s := endian.View[ondisk.Super](img[ondisk.SuperOffset:])
	ino := ondisk.Ino(s.OrphanFileInum.Get())
	d := ondisk.Desc(img[2048 : 2048+s.DescSz()])
	at := int(d.InodeTable())*1024 + (int(ino)-1)*256
	raw := ondisk.RawInode(img[at : at+256])
	if err := raw.VerifyCsum(s.CsumSeed(), ino); err != nil {
		t.Fatal(err)
	}
	seed := ondisk.InodeSeed(s.CsumSeed(), ino, raw.Base().Generation.Get())
	n := 0
	for blk := 1; blk < len(img)/1024; blk++ {
		b := img[blk*1024 : (blk+1)*1024]
		if endian.View[endian.LE32](b[1016:]).Get() != ondisk.OrphanMagic {
			continue
		}
		n++
		if err := ondisk.VerifyOrphanBlock(b, seed, ondisk.Fsblk(blk), true); err != nil {
			t.Fatalf("block %d: %v", blk, err)
		}
		if err := ondisk.VerifyOrphanBlock(b, seed, ondisk.Fsblk(blk)+1, true); !errors.Is(err, ondisk.EBADMSG) {
			t.Fatalf("in another place: %v", err)
		}
		was := bytes.Clone(b)
		ondisk.SealOrphanBlock(b, seed, ondisk.Fsblk(blk))
		if !bytes.Equal(was, b) {
			t.Fatal("sealed, it is another")
		}
	}
	if n == 0 {
		t.Fatal("no orphan file block")
	}
}

func FuzzOrphanBlock(f *testing.F) {
	f.Add(make([]byte, 1024), uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, seed uint32) {
		if len(b) < ondisk.MinBlockSize {
			return
		}
		_ = ondisk.VerifyOrphanBlock(b, seed, 7, true)
		endian.View[ondisk.OrphanTail](b[len(b)-ondisk.OrphanTailSize:]).Magic.Set(ondisk.OrphanMagic)
		ondisk.SealOrphanBlock(b, seed, 7)
		if err := ondisk.VerifyOrphanBlock(b, seed, 7, true); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzFC(f *testing.F) {
	f.Add([]byte("0123456789ab"))
	f.Add(make([]byte, 16))
	f.Add(make([]byte, 4+160))
	f.Fuzz(func(t *testing.T, v []byte) {
		if a, err := ondisk.ParseFCAddRange(v); err == nil {
			_, _ = a.Extent.Start(), a.Extent.Len()
		}
		if d, err := ondisk.ParseFCDelRange(v); err == nil {
			_ = d.Len.Get()
		}
		if _, name, err := ondisk.ParseFCDentry(v); err == nil && (len(name) == 0 || len(name) > ondisk.NameLen) {
			t.Fatalf("a name of %d bytes", len(name))
		}
		if _, raw, err := ondisk.ParseFCInode(v, 256); err == nil && (len(raw) < ondisk.GoodOldInodeSz || len(raw) > 256) {
			t.Fatalf("an inode of %d bytes", len(raw))
		}
	})
}
