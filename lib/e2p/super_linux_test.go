package e2p

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

func testNames() Names {
	return Names{
		User: func(id uint32) (string, bool) {
			u, err := user.LookupId(fmt.Sprint(id))
			if err != nil {
				return "", false
			}
			return u.Username, true
		},
		Group: func(id uint32) (string, bool) {
			g, err := user.LookupGroupId(fmt.Sprint(id))
			if err != nil {
				return "", false
			}
			return g.Name, true
		},
		Location: time.Local,
	}
}

// TestListSuper fills all fields that do not decide whether dumpe2fs opens the
// file system with random bytes, and with none, and compares with its listing.
func TestListSuper(t *testing.T) {
	old := testfs.OldListing(t)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "super", BlockSize: 1024, Size: 1 << 20, Features: "^has_journal,^resize_inode"})
	img.ExpectDirty("its superblock is overwritten")
	b, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testfs.Scratch(t), "image")
	good := *endian.View[ondisk.Super](b[1024:])
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s := endian.View[ondisk.Super](b[1024:])
		randomSuper(rng, s, &good, old)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		want, _ := testfs.Listing(t, "dumpe2fs", "-fh", path)
		want = testfs.SameListing(t, want, 1)
		var got bytes.Buffer
		if err := ListSuper(&got, s, testNames()); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(want, got.String()) || got.Len() == 0 {
			t.Fatalf("seed %d: %s", seed, testfs.FirstDiff(want, got.String()))
		}
	}
}

// randomSuper changes s, of which good is what it was.
func randomSuper(rng *rand.Rand, s, good *ondisk.Super, old bool) {
	p := endian.Bytes(s)
	for i := range p {
		switch rng.IntN(4) {
		case 0, 1:
			p[i] = byte(rng.Uint32())
		case 2:
			p[i] = 0
		}
	}
	// What opening looks at.
	copy(p[:0x2c], endian.Bytes(good)[:0x2c])
	s.Magic, s.RevLevel, s.InodeSize, s.DescSize = good.Magic, good.RevLevel, good.InodeSize, good.DescSize
	s.BlocksCountHi, s.LogGroupsPerFlex = good.BlocksCountHi, good.LogGroupsPerFlex
	s.ChecksumType[0] = 1
	s.FeatureIncompat.Set(good.FeatureIncompat.Get() | rng.Uint32()&^(ondisk.IncompatJournalDev|ondisk.IncompatMetaBG))
	s.FeatureROCompat.Set(s.FeatureROCompat.Get() &^ ondisk.ROCompatBigalloc)
	s.FeatureCompat.Set(s.FeatureCompat.Get() &^ ondisk.CompatHasJournal)
	if rng.IntN(3) == 0 {
		s.Encoding.Set(1)
		s.DefHashVersion[0] = byte(rng.IntN(4))
		s.CreatorOS.Set(uint32(rng.IntN(6)))
		s.FirstErrorErrcode[0], s.LastErrorErrcode[0] = byte(rng.IntN(20)), byte(rng.IntN(20))
		s.Checkinterval.Set(rng.Uint32() >> rng.IntN(32))
		s.KbytesWritten.Set(rng.Uint64() >> rng.IntN(64))
		s.DefResuid.Set(uint16(rng.IntN(12)))
		s.DefResgid.Set(uint16(rng.IntN(12)))
		s.Errors.Set(uint16(rng.IntN(5)))
		s.JnlBackupType[0] = byte(rng.IntN(3))
	}
	for _, zero := range [][]byte{s.UUID[:], s.JournalUUID[:], s.EncryptPwSalt[:], s.VolumeName[:1], s.LastMounted[:1], s.MountOpts[:1]} {
		if rng.IntN(3) == 0 {
			clear(zero)
		}
	}
	// Control characters are not printed as they are, see TestListSuperHostile.
	for _, text := range [][]byte{s.VolumeName[:], s.LastMounted[:], s.MountOpts[:], s.FirstErrorFunc[:], s.LastErrorFunc[:]} {
		for i, c := range text {
			if c != 0 && c&0x60 == 0 || c == 0x7f {
				text[i] = '!' + c&0x1f
			}
		}
	}
	if old {
		for _, hi := range []*[1]byte{&s.WtimeHi, &s.MtimeHi, &s.MkfsTimeHi, &s.LastcheckHi, &s.FirstErrorTimeHi, &s.LastErrorTimeHi} {
			hi[0] = 0
		}
		s.Checkinterval.Set(s.Checkinterval.Get() & 0x0fffffff) // which it adds to 32 bits
		s.Lastcheck.Set(s.Lastcheck.Get() & 0x7fffffff)
	}
	s.Checksum.Set(ondisk.SuperCsum(s))
}

// TestListJournal does the same with the superblock of an external journal.
func TestListJournal(t *testing.T) {
	path := filepath.Join(testfs.Scratch(t), "journal")
	testfs.Run(t, "mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096", path, "2048")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 6))
		j := endian.View[jbd2.Superblock](b[4096:])
		head := j.Header
		p := endian.Bytes(j)
		for i := range p {
			if p[i] = byte(rng.Uint32()); rng.IntN(3) == 0 {
				p[i] = 0
			}
		}
		j.Header = head
		if rng.IntN(2) == 0 {
			j.NrUsers.Set(uint32(rng.IntN(60)))
			j.BlockSize.Set(4096)
			j.ChecksumType = byte(rng.IntN(6))
			j.MaxLen.Set(uint32(rng.IntN(4000)))
			j.NumFCBlocks.Set(uint32(rng.IntN(2) * 100))
			j.First.Set(uint32(rng.IntN(3)))
			clear(j.Users[rng.IntN(3)][:])
		}
		s := endian.View[ondisk.Super](b[1024:])
		fc := rng.IntN(2) == 0
		s.FeatureCompat.Set(0)
		if fc {
			s.FeatureCompat.Set(ondisk.CompatFastCommit)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		want, _ := testfs.Listing(t, "dumpe2fs", "-f", path)
		_, want, ok := strings.Cut(want, "\nJournal features:")
		var got bytes.Buffer
		if err := ListJournal(&got, j, 4096, fc); err != nil {
			t.Fatal(err)
		}
		if d := testfs.FirstDiff("Journal features:"+want, got.String()); !ok || d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

// TestListMMP does the same with the block of multiple mount protection.
func TestListMMP(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "mmp", BlockSize: 1024, Size: 2 << 20, Features: "mmp,^metadata_csum,^has_journal"})
	img.ExpectDirty("its mmp block is overwritten")
	b, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	at := endian.View[ondisk.Super](b[1024:]).MMPBlock.Get() * 1024
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		m := endian.View[ondisk.MMP](b[at:])
		for i, p := 0, endian.Bytes(m); i < len(p); i++ {
			p[i] = byte(rng.Uint32())
		}
		m.Magic.Set(ondisk.MMPMagic)
		m.Seq.Set(rng.Uint32() >> rng.IntN(33))
		m.Time.Set(rng.Uint64() >> rng.IntN(64))
		if err := os.WriteFile(img.Path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		want, _ := testfs.Listing(t, "dumpe2fs", "-h", img.Path)
		_, want, ok := strings.Cut(want, "\nMMP_block:")
		want, _, _ = strings.Cut(want, "\nBad blocks:")
		want = "MMP_block:" + strings.TrimRight(want, "\n") + "\n"
		var got bytes.Buffer
		if err := ListMMP(&got, m, time.Local); err != nil {
			t.Fatal(err)
		}
		if d := testfs.FirstDiff(want, strings.TrimRight(got.String(), "\n")+"\n"); !ok || d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

func TestInterval(t *testing.T) {
	for secs, want := range map[uint32]string{
		0: "<none>", 59: "0:00:59", 3600: "1:00:00", 86400: "1 day", 86400*37 + 61: "1 month, 1 week, 0:01:01",
		15552000: "6 months", 86400 * 16: "2 weeks, 2 days",
	} {
		if got := Interval(secs); got != want {
			t.Errorf("%d: %s, want %s", secs, got, want)
		}
	}
	if s := Ctime(1<<63-1, time.UTC); s != "(null)" {
		t.Error(s)
	}
	if s := Ctime(1700000000, time.UTC); s != "Tue Nov 14 22:13:20 2023" {
		t.Error(s)
	}
}
