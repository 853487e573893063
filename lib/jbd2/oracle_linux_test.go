package jbd2_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// image is an image's journal and blocks, as C debugfs tells of them.
type image struct {
	testing.TB
	img   *testfs.Image
	dev   *blockdev.File
	bsize int
}

func openImage(t testing.TB, img *testfs.Image) *image {
	t.Helper()
	dev, err := blockdev.Open(img.Path, blockdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	bsize := img.Spec.BlockSize
	if bsize == 0 {
		bsize = 4096
	}
	return &image{t, img, dev, bsize}
}

var mapped = regexp.MustCompile(`\((\d+)(?:-(\d+))?\)(?:\[u\])?:(\d+)`)

// blocks returns where each block of a file lies.
func (m *image) blocks(file string) []uint64 {
	m.Helper()
	out := testfs.Run(m, "debugfs", "-c", "-R", "stat "+file, m.img.Path) // -c: its bitmaps may be in the log
	var list []uint64
	for _, f := range mapped.FindAllStringSubmatch(out, -1) {
		a, _ := strconv.ParseUint(f[1], 10, 32)
		b, at := a, uint64(0)
		if f[2] != "" {
			b, _ = strconv.ParseUint(f[2], 10, 32)
		}
		at, _ = strconv.ParseUint(f[3], 10, 64)
		for n := a; n <= b; n++ {
			for uint64(len(list)) <= n {
				list = append(list, 0)
			}
			list[n] = at + n - a
		}
	}
	return list
}

// config returns the configuration of the image's journal.
func (m *image) config() jbd2.Config {
	m.Helper()
	c := &clock{}
	cfg := jbd2.Config{Dev: m.dev, BlockSize: m.bsize, Barrier: true, Interval: -1, Now: c.now}
	if m.img.Journal != "" {
		dev, err := blockdev.Open(m.img.Journal, blockdev.Options{})
		if err != nil {
			m.Fatal(err)
		}
		m.Cleanup(func() { dev.Close() })
		d, err := jbd2.OpenDevice(dev)
		if err != nil {
			m.Fatal(err)
		}
		if d.BlockSize != m.bsize {
			m.Fatalf("journal device has blocks of %d", d.BlockSize)
		}
		cfg.Dev, cfg.FSDev, cfg.Blocks, cfg.SuperBlock = dev, m.dev, d.Blocks, d.SuperBlock
		return cfg
	}
	log := m.blocks("<8>")
	if len(log) == 0 {
		m.Fatalf("no journal: %s", testfs.Run(m, "debugfs", "-c", "-R", "stat <8>", m.img.Path))
	}
	cfg.Blocks = uint32(len(log))
	cfg.Map = func(n uint32) (uint64, error) { return log[n], nil }
	return cfg
}

// fsReplayer replays to the image.
type fsReplayer struct {
	m    *image
	tags *[]uint16
}

func (r fsReplayer) Check(blk uint64) error {
	if int64(blk) >= r.m.dev.Size()/int64(r.m.bsize) {
		return fmt.Errorf("block %d", blk)
	}
	return nil
}

func (r fsReplayer) Write(blk uint64, data []byte) error {
	_, err := r.m.dev.WriteAt(data, int64(blk)*int64(r.m.bsize))
	return err
}

func (r fsReplayer) FastCommit(tag uint16, value []byte) error {
	if r.tags != nil {
		*r.tags = append(*r.tags, tag)
	}
	return nil
}

func (r fsReplayer) Sync() error { return r.m.dev.Sync() }

// TestRecoverAsC recovers images that the kernel left dirty, and compares what
// we wrote with what C e2fsck writes.
func TestRecoverAsC(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	testfs.NeedRoot(t)
	for _, d := range testfs.DirtyImages() {
		if d.Cut == testfs.CutCopy && strings.Contains(d.Name, "nojournal") {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			img := d.Make(t)
			ref := img.Copy(t)
			img.ExpectDirty("only the log is replayed")
			ref.ExpectDirty("only the log is replayed")
			m := openImage(t, img)
			cfg := m.config()
			j, err := jbd2.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			info := j.Info()
			var tags []uint16
			st, err := j.Recover(fsReplayer{m, &tags})
			t.Logf("%+v, %+v", info, st)
			if err != nil {
				t.Fatal(err)
			}
			if info.NeedsRecovery && st.Replayed == 0 && st.FastCommits == 0 {
				t.Error("nothing replayed")
			}
			if d.Revokes && st.RevokeBlocks == 0 {
				t.Error("no revoke records found")
			}
			if d.FastCommits != (len(tags) > 0) {
				t.Errorf("fast commit tags %v", tags)
			}
			if err := j.Clear(); err != nil {
				t.Fatal(err)
			}
			if d.FastCommits {
				return // e2fsck would apply them
			}
			// debugfs does not open images whose bitmaps are bad without the log, or
			// external journals. e2fsck does, but also what comes after.
			if img.Journal != "" || strings.Contains(testfs.Run(t, "debugfs", "-w", "-R", "journal_run", ref.Path), "not open") {
				for _, i := range []*testfs.Image{ref, img} {
					args := []string{"-fy", i.Path}
					if i.Journal != "" {
						args = append(args, "-j", i.Journal)
					}
					out, err := exec.Command("e2fsck", args...).CombinedOutput()
					if err != nil && err.(*exec.ExitError).ExitCode() > 1 {
						t.Fatalf("e2fsck: %v\n%s", err, out)
					}
				}
			}
			skip := map[uint64]bool{0: true, 1: m.bsize == 1024} // the superblock has times and flags
			if img.Journal == "" {
				for _, blk := range m.blocks("<8>") {
					skip[blk] = true
				}
			}
			sameBlocks(t, img.Path, ref.Path, m.bsize, skip)
		})
	}
}

// sameBlocks compares two images, except for some blocks.
func sameBlocks(t *testing.T, a, b string, bsize int, skip map[uint64]bool) {
	t.Helper()
	fa, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer fb.Close()
	pa, pb := make([]byte, bsize), make([]byte, bsize)
	diff := 0
	for blk := uint64(0); ; blk++ {
		_, ea := fa.ReadAt(pa, int64(blk)*int64(bsize))
		_, eb := fb.ReadAt(pb, int64(blk)*int64(bsize))
		if ea != nil || eb != nil {
			if (ea == nil) != (eb == nil) {
				t.Errorf("images differ in size")
			}
			return
		}
		if !bytes.Equal(pa, pb) && !skip[blk] {
			if diff++; diff < 10 {
				t.Errorf("block %d differs", blk)
			}
		}
	}
}

// raw is a kind without checksum: the data of files, which these tests log.
type raw struct{}

func (raw) Name() string                                  { return "data" }
func (raw) Verify([]byte, buffer.Block, buffer.Ctx) error { return nil }
func (raw) Seal([]byte, buffer.Block, buffer.Ctx)         {}

// TestLogForC writes journals that C e2fsck, C debugfs and the kernel read: the
// logged blocks are those of a file, whose contents tell what was replayed.
func TestLogForC(t *testing.T) {
	nocsum := "^metadata_csum"
	const csum = jbd2.IncompatCsumV2 | jbd2.IncompatCsumV3
	for _, c := range []struct {
		name       string
		spec       testfs.Spec
		set, clear jbd2.Features
		async      bool
		tagFormat  uint32
	}{
		{name: "ext3", spec: testfs.Spec{Type: "ext3", BlockSize: 1024}},
		{name: "32bit", spec: testfs.Spec{Features: nocsum + ",^64bit"}},
		{name: "64bit", spec: testfs.Spec{Features: nocsum}, set: jbd2.Features{Incompat: jbd2.Incompat64Bit}},
		{name: "csum1", spec: testfs.Spec{Features: nocsum}, set: jbd2.Features{Compat: jbd2.CompatChecksum}},
		{name: "csum1-async", spec: testfs.Spec{Features: nocsum}, async: true},
		{name: "csum2", spec: testfs.Spec{BlockSize: 1024, Features: "^64bit"}, set: jbd2.Features{Incompat: jbd2.IncompatCsumV2}},
		{name: "csum2-64bit", set: jbd2.Features{Incompat: jbd2.IncompatCsumV2 | jbd2.Incompat64Bit}},
		{name: "csum3", spec: testfs.Spec{Features: "^64bit"}, set: jbd2.Features{Incompat: jbd2.IncompatCsumV3}},
		{name: "csum3-64bit", set: jbd2.Features{Incompat: jbd2.IncompatCsumV3 | jbd2.Incompat64Bit}},
		{name: "csum3-async", set: jbd2.Features{Incompat: jbd2.IncompatCsumV3 | jbd2.Incompat64Bit}, async: true},
		{name: "fast-commit", spec: testfs.Spec{Features: "fast_commit"}, set: jbd2.Features{Incompat: jbd2.IncompatCsumV3 | jbd2.Incompat64Bit}},
		{name: "64k", spec: testfs.Spec{BlockSize: 65536, Size: 256 << 20}, set: jbd2.Features{Incompat: jbd2.IncompatCsumV3 | jbd2.Incompat64Bit}},
		{name: "external", spec: testfs.Spec{External: true}, set: jbd2.Features{Incompat: jbd2.IncompatCsumV3 | jbd2.Incompat64Bit}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.spec.External {
				testfs.NeedRoot(t)
			}
			const n = 600 // blocks of the file
			bsize := max(c.spec.BlockSize, 1024)
			if c.spec.BlockSize == 0 {
				bsize = 4096
			}
			c.spec.Dir = testfs.Scratch(t)
			old := bytes.Repeat([]byte("old!"), n*bsize/4)
			if err := os.WriteFile(filepath.Join(c.spec.Dir, "file"), old, 0o644); err != nil {
				t.Fatal(err)
			}
			img := testfs.Mke2fs(t, c.spec)
			m := openImage(t, img)
			cfg := m.config()
			cfg.Set, cfg.Clear, cfg.Async = c.set, c.clear, c.async
			if c.set.Incompat&csum == 0 {
				cfg.Clear.Incompat |= csum
			}
			blks := m.blocks("/file")
			if len(blks) != n {
				t.Fatalf("%d blocks", len(blks))
			}
			want := bytes.Clone(old)
			cache := buffer.New(m.dev, buffer.Options{BlockSize: bsize})
			cfg.Cache = cache
			j, err := jbd2.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Load(); err != nil {
				t.Fatal(err)
			}
			change := func(i int, v uint64) {
				h, err := j.Start(1)
				if err != nil {
					t.Fatal(err)
				}
				b, err := cache.Read(buffer.Block(blks[i]), raw{}, buffer.Ctx{})
				if err != nil {
					t.Fatal(err)
				}
				if err := h.GetWrite(b); err != nil {
					t.Fatal(err)
				}
				fill(b.Data(), v)
				h.Dirty(b)
				fill(want[i*bsize:(i+1)*bsize], v)
				b.Put()
				if err := h.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			forget := func(i int) {
				h, err := j.Start(1)
				if err != nil {
					t.Fatal(err)
				}
				h.Revoke(blks[i])
				if err := h.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			commit := func() {
				if err := j.CommitRunning(); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 40 {
				change(i, uint64(i+2))
			}
			commit()
			if err := j.Flush(); err != nil { // so that the log does not start at its first block
				t.Fatal(err)
			}
			for i := range 15 { // less than the log takes before it is checkpointed
				for k := range 20 {
					change((i*17+k)%500, uint64(1000+i*100+k))
				}
				commit()
			}
			for i := 500; i < n; i++ {
				change(i, 7001)
			}
			commit()
			for i := 550; i < n; i++ {
				forget(i)
			}
			commit()
			for i := 550; i < n; i++ { // as data
				fill(want[i*bsize:(i+1)*bsize], 8002)
				if _, err := m.dev.WriteAt(want[i*bsize:(i+1)*bsize], int64(blks[i])*int64(bsize)); err != nil {
					t.Fatal(err)
				}
			}
			change(1, 9003)
			commit()

			dirty := img.Copy(t) // the crash
			dirty.ExpectClean()
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}

			arg := []string{}
			if dirty.Journal != "" {
				arg = []string{"-f", dirty.Journal}
			}
			out := testfs.Run(t, "debugfs", "-R", "logdump -aO "+strings.Join(arg, " "), dirty.Path)
			if strings.Contains(strings.ToLower(out), "csum") || strings.Contains(strings.ToLower(out), "invalid") {
				t.Errorf("logdump: %s", out)
			}
			for _, part := range []string{"type 1 (descriptor", "type 2 (commit", "type 5 (revoke"} {
				if !strings.Contains(out, part) {
					t.Errorf("logdump without %q:\n%.2000s", part, out)
				}
			}

			check := func(who string, img *testfs.Image) {
				t.Helper()
				got := filepath.Join(testfs.Scratch(t), "got")
				testfs.Run(t, "debugfs", "-R", "dump /file "+got, img.Path)
				b, err := os.ReadFile(got)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b, want) {
					for i := range n {
						if !bytes.Equal(b[i*bsize:(i+1)*bsize], want[i*bsize:(i+1)*bsize]) {
							t.Fatalf("%s: block %d of the file differs: % x, want % x", who, i, b[i*bsize:][:16], want[i*bsize:][:16])
						}
					}
				}
			}
			check("Close", img)
			if dirty.Journal == "" {
				testfs.Run(t, "debugfs", "-w", "-R", "feature needs_recovery", dirty.Path)
				ours := dirty.Copy(t)
				e2 := dirty.Copy(t)
				cmd := exec.Command("e2fsck", "-fy", e2.Path)
				if out, err := cmd.CombinedOutput(); err != nil && err.(*exec.ExitError).ExitCode() > 1 {
					t.Fatalf("e2fsck: %v\n%s", err, out)
				} else if !strings.Contains(string(out), "recovering journal") {
					t.Errorf("e2fsck replayed nothing: %s", out)
				}
				check("e2fsck", e2)
				if os.Getuid() == 0 && bsize <= 4096 {
					mnt, err := testfs.TryKernelMount(t, dirty, "")
					if err != nil {
						t.Fatalf("kernel: %v", err)
					}
					_ = mnt.Unmount()
					check("kernel", dirty)
				} else {
					dirty.ExpectDirty("not recovered")
				}
				mo := openImage(t, ours)
				cfg := mo.config()
				j, err := jbd2.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if st, err := j.Recover(fsReplayer{mo, nil}); err != nil || st.RevokeBlocks == 0 || st.Revoked == 0 {
					t.Fatalf("our recovery: %v %+v", err, st)
				}
				if err := j.Clear(); err != nil {
					t.Fatal(err)
				}
				check("ours", ours)
				ours.ExpectDirty("the flag needs_recovery stays")
			} else {
				dirty.ExpectDirty("not recovered")
			}
		})
	}
}

// TestSuperblockAsC compares fresh journal superblocks with those of mke2fs.
func TestSuperblockAsC(t *testing.T) {
	for _, s := range []testfs.Spec{
		{Type: "ext3", BlockSize: 1024}, {}, {Features: "fast_commit"}, {External: true}, {External: true, BlockSize: 1024},
	} {
		t.Run(s.String(), func(t *testing.T) {
			if s.External {
				testfs.NeedRoot(t)
			}
			m := openImage(t, testfs.Mke2fs(t, s))
			cfg := m.config()
			j, err := jbd2.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, m.bsize)
			if err := j.ReadBlock(cfg.SuperBlock, p); err != nil {
				t.Fatal(err)
			}
			in := j.Info()
			fc := endian.View[jbd2.Superblock](p).NumFCBlocks.Get()
			q := jbd2.NewSuperblock(m.bsize, cfg.Blocks, cfg.SuperBlock, jbd2.CreateOptions{
				Features: in.Features, UUID: in.UUID, Users: in.Users, FCBlocks: fc, Sequence: in.Sequence})
			endian.View[jbd2.Superblock](q).NumFCBlocks.Set(fc)
			if !bytes.Equal(p, q) {
				for i := range p {
					if p[i] != q[i] {
						t.Errorf("byte %#x: C has %#x, we %#x", i, p[i], q[i])
					}
				}
			}
		})
	}
}
