package ext2fs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// makeFiles adds n empty files, f0 and so on, to the root of img by C debugfs,
// and returns their inode numbers.
func makeFiles(t testing.TB, img *testfs.Image, n int) []ondisk.Ino {
	t.Helper()
	var inos []ondisk.Ino
	for i := range n {
		testfs.Run(t, "debugfs", "-w", "-R", fmt.Sprintf("write /dev/null f%d", i), img.Path)
		out := testfs.Run(t, "debugfs", "-R", fmt.Sprintf("stat f%d", i), img.Path)
		_, s, ok := strings.Cut(out, "Inode: ")
		k := strings.IndexByte(s, ' ')
		if !ok || k < 0 {
			t.Fatalf("debugfs: %s", out)
		}
		ino, err := strconv.Atoi(s[:k])
		if err != nil {
			t.Fatal(err)
		}
		inos = append(inos, ondisk.Ino(ino))
	}
	return inos
}

// fileModel is a file beside what it should hold.
type fileModel struct {
	t    *testing.T
	ip   *Inode
	data []byte
	max  int
	rnd  *rand.Rand
	log  []string // of the operations so far

	// For crash states: everything is in units of 16 bytes that begin with tag,
	// as testfs wants it, and mark is told what a sync promises.
	tag  string
	path string
	mark func(any)
}

// grain is what offsets are multiples of.
func (m *fileModel) grain() int {
	if m.tag != "" {
		return 16
	}
	return 1
}

// content returns n bytes to write.
func (m *fileModel) content(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(m.rnd.Uint32() | 1)
		if k := i % 16; m.tag != "" && k < len(m.tag) {
			p[i] = m.tag[k]
		}
	}
	return p
}

func (m *fileModel) fatal(format string, args ...any) {
	m.t.Helper()
	n := len(m.log)
	m.t.Fatalf("%s\nafter %d operations, the last:\n%s", fmt.Sprintf(format, args...), n, strings.Join(m.log[max(0, n-12):], "\n"))
}

func (m *fileModel) resize(n int) {
	if n <= len(m.data) {
		m.data = m.data[:n]
		return
	}
	m.data = append(m.data, make([]byte, n-len(m.data))...)
}

// pick returns a range that is block aligned now and then.
func (m *fileModel) pick(most int) (off, n int) {
	bs := m.ip.fs.blockSize
	off, n = m.rnd.IntN(m.max), m.rnd.IntN(most)+1
	if m.rnd.IntN(3) == 0 {
		off = m.rnd.IntN(len(m.data) + 1)
	}
	if m.rnd.IntN(2) == 0 {
		off, n = off/bs*bs, (n+bs-1)/bs*bs
	}
	g := m.grain()
	return off / g * g, (max(min(n, m.max-off), 1) + g - 1) / g * g
}

// step does one random operation on both.
func (m *fileModel) step() {
	ip, bs := m.ip, m.ip.fs.blockSize
	note := func(format string, args ...any) { m.log = append(m.log, fmt.Sprintf(format, args...)) }
	check := func(err error, allowed ...error) bool {
		m.t.Helper()
		for _, a := range allowed {
			if a != nil && errors.Is(err, a) {
				return false
			}
		}
		if err != nil {
			m.fatal("%v", err)
		}
		return true
	}
	noext := error(nil)
	if !ip.isExtents() {
		noext = syscall.EOPNOTSUPP
	}
	op := m.rnd.IntN(20)
	if m.mark != nil && op != 19 {
		m.mark(testfs.Touch{Path: m.path})
	}
	switch op {
	case 0, 1, 2, 3, 4, 5, 6:
		off, n := m.pick(6 * bs)
		if m.rnd.IntN(3) == 0 {
			off = len(m.data)
			if off+n > m.max {
				return
			}
		}
		p := m.content(n)
		note("write %d+%d", off, n)
		got, err := ip.WriteAt(p, int64(off))
		if check(err) && got != n {
			m.fatal("wrote %d of %d", got, n)
		}
		m.resize(max(len(m.data), off+n))
		copy(m.data[off:], p)
	case 7, 8, 9:
		off, n := m.pick(20 * bs)
		p := bytes.Repeat([]byte{0xaa}, n)
		got, err := ip.ReadAt(p, int64(off))
		want := max(min(n, len(m.data)-off), 0)
		if got != want || (err == io.EOF) != (want < n) || err != nil && err != io.EOF {
			m.fatal("read %d+%d: %d, %v; want %d", off, n, got, err, want)
		}
		if want > 0 && !bytes.Equal(p[:got], m.data[off:off+got]) {
			m.fatal("read %d+%d: content differs", off, n)
		}
	case 10:
		n := m.rnd.IntN(m.max)
		if m.rnd.IntN(2) == 0 {
			n = m.rnd.IntN(len(m.data) + 1)
		}
		n = n / m.grain() * m.grain()
		note("truncate %d", n)
		ip.mu.Lock()
		err := ip.truncateTo(int64(n))
		ip.mu.Unlock()
		check(err)
		m.resize(n)
	case 11, 12:
		off, n := m.pick(30 * bs)
		note("punch %d+%d", off, n)
		check(ip.Fallocate(FallocPunchHole|FallocKeepSize, int64(off), int64(n)))
		if off < len(m.data) {
			clear(m.data[off:min(off+n, len(m.data))])
		}
	case 13:
		off, n := m.pick(30 * bs)
		keep := m.rnd.IntN(2)
		note("zero %d+%d keep %d", off, n, keep)
		if check(ip.Fallocate(FallocZeroRange|uint32(keep), int64(off), int64(n)), noext) {
			if keep == 0 {
				m.resize(max(len(m.data), off+n))
			}
			if off < len(m.data) {
				clear(m.data[off:min(off+n, len(m.data))])
			}
		}
	case 14, 15:
		off, n := m.pick(60 * bs)
		keep := m.rnd.IntN(2)
		note("allocate %d+%d keep %d", off, n, keep)
		if check(ip.Fallocate(uint32(keep), int64(off), int64(n)), noext) && keep == 0 {
			m.resize(max(len(m.data), off+n))
		}
	case 16:
		cs := bs << ip.fs.clusterBits
		off, n := m.rnd.IntN(len(m.data)/cs+1)*cs, (m.rnd.IntN(4)+1)*cs
		note("collapse %d+%d", off, n)
		want := noext
		if off+n >= len(m.data) && noext == nil {
			want = syscall.EINVAL
		}
		if check(ip.Fallocate(FallocCollapse, int64(off), int64(n)), want) {
			m.data = append(m.data[:off], m.data[off+n:]...)
		}
	case 17:
		cs := bs << ip.fs.clusterBits
		off, n := m.rnd.IntN(len(m.data)/cs+1)*cs, (m.rnd.IntN(4)+1)*cs
		if len(m.data)+n > m.max {
			return
		}
		note("insert %d+%d", off, n)
		want := noext
		if off >= len(m.data) && noext == nil {
			want = syscall.EINVAL
		}
		if check(ip.Fallocate(FallocInsert, int64(off), int64(n)), want) {
			tail := append(make([]byte, n), m.data[off:]...)
			m.data = append(m.data[:off], tail...)
		}
	case 18:
		if len(m.data) == 0 {
			return
		}
		off := m.rnd.IntN(len(m.data))
		d, err := ip.SeekData(int64(off))
		if errors.Is(err, syscall.ENXIO) {
			d, err = int64(len(m.data)), nil
		}
		check(err)
		if d < int64(off) || len(bytes.Trim(m.data[off:d], "\x00")) > 0 {
			m.fatal("seek data from %d: %d", off, d)
		}
		h, err := ip.SeekHole(int64(off))
		check(err)
		end := min((int(h)/bs+1)*bs, len(m.data))
		if h < int64(off) || len(bytes.Trim(m.data[h:end], "\x00")) > 0 {
			m.fatal("seek hole from %d: %d", off, h)
		}
	case 19:
		check(ip.Fsync(m.rnd.IntN(2) == 0))
		m.promise()
	}
	if s := ip.Size(); s != int64(len(m.data)) {
		m.fatal("size %d, want %d", s, len(m.data))
	}
}

// promise marks what is durable.
func (m *fileModel) promise() {
	if m.mark != nil {
		m.mark(testfs.Promise{Path: m.path, Sums: [][sha256.Size]byte{sha256.Sum256(m.data)}})
	}
}

// compare reads the whole file.
func (m *fileModel) compare() {
	p := make([]byte, len(m.data))
	n, err := m.ip.ReadAt(p, 0)
	if n != len(p) || err != nil && err != io.EOF {
		m.fatal("read %d of %d: %v", n, len(p), err)
	}
	if !bytes.Equal(p, m.data) {
		for i := range p {
			if p[i] != m.data[i] {
				m.fatal("byte %d is %#x, should be %#x", i, p[i], m.data[i])
			}
		}
	}
}

// modelSpecs are the images that files are tested on.
func modelSpecs() []testfs.Spec {
	const mb = 1 << 20
	return []testfs.Spec{
		{Name: "ext4-4k"},
		{Name: "ext4-1k", BlockSize: 1024},
		{Name: "ext4-64k", BlockSize: 65536, Size: 256 * mb},
		{Name: "ext4-nojournal-nocsum", Features: "^has_journal,^metadata_csum,^64bit"},
		{Name: "ext4-bigalloc-1k-16k", Features: "bigalloc", BlockSize: 1024, Cluster: 16384, Size: 128 * mb, Inodes: 8192},
		{Name: "ext4-bigalloc-4k-64k", Features: "bigalloc", Cluster: 65536, Size: 256 * mb, Inodes: 8192},
		{Name: "ext2-1k", Type: "ext2", BlockSize: 1024},
		{Name: "ext3-4k", Type: "ext3"},
		{Name: "ext4-noextents", Features: "^extent,^64bit"},
		{Name: "ext4-nohuge", Features: "^huge_file,^dir_nlink"},
		{Name: "ext4-journal-small", BlockSize: 1024, Journal: "size=1"},
	}
}

// TestFileModel does random operations on files, against bytes in memory, and
// has the kernel read what is left.
func TestFileModel(t *testing.T) {
	for _, spec := range modelSpecs() {
		for _, mode := range []DataMode{DataOrdered, DataJournal} {
			if mode == DataJournal && spec.Name != "ext4-4k" && spec.Name != "ext4-bigalloc-1k-16k" && spec.Name != "ext3-4k" && spec.Name != "ext4-journal-small" {
				continue
			}
			name := spec.Name
			if mode == DataJournal {
				name += "-data=journal"
			}
			t.Run(name, func(t *testing.T) {
				// E2KIT_SEEDS=n tries n seeds.
				seeds, _ := strconv.ParseUint(os.Getenv("E2KIT_SEEDS"), 10, 32)
				for seed := range max(seeds, 1) {
					runFileModel(t, spec, mode, 600, seed)
				}
			})
		}
	}
}

func runFileModel(t *testing.T, spec testfs.Spec, mode DataMode, steps int, seed uint64) {
	img := testfs.Mke2fs(t, spec)
	inos := makeFiles(t, img, 2)
	rnd := rand.New(rand.NewPCG(seed, 7))
	models := make([]*fileModel, len(inos))
	for i := range models {
		models[i] = &fileModel{t: t, rnd: rnd}
	}
	fs := openImage(t, img, Options{DataMode: mode})
	for round := range 3 {
		for i, m := range models {
			ip, err := fs.Iget(inos[i])
			if err != nil {
				t.Fatal(err)
			}
			m.ip = ip
			m.max = 300 * fs.blockSize
			if m.max > 4<<20 {
				m.max = 4 << 20
			}
			m.compare()
		}
		for i := range steps {
			m := models[rnd.IntN(len(models))]
			m.step()
			if i%40 == 0 {
				m.compare()
			}
		}
		for _, m := range models {
			m.compare()
			m.ip.Put()
		}
		if err := fs.Close(); err != nil {
			t.Fatal(err)
		}
		if err := img.Check(t); err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
		if os.Getuid() == 0 && testfs.Supported(t, spec) == nil {
			k := testfs.KernelMount(t, img, "ro")
			for i, m := range models {
				b, err := os.ReadFile(filepath.Join(k.Dir, "f"+strconv.Itoa(i)))
				if err != nil || !bytes.Equal(b, m.data) {
					t.Fatalf("the kernel reads something else in f%d: %d bytes, want %d, %v", i, len(b), len(m.data), err)
				}
			}
			if err := k.Unmount(); err != nil {
				t.Fatal(err)
			}
		}
		fs = openImage(t, img, Options{DataMode: mode})
	}
	fs.Close()
}
