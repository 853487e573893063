//go:build linux

package testfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A Spec is a recipe for an image. The zero value of a field leaves the choice
// to the recipe of its Type, never to the configuration of the machine.
type Spec struct {
	Name      string
	Type      string   // ext2, ext3 or ext4 (the default): the features to start from
	BlockSize int      // bytes; default 4096
	Size      int64    // bytes; default 64 MiB
	InodeSize int      // bytes; default 256, and 128 for ext2 and ext3
	Inodes    int      // number; default one for each 8 KiB
	Features  string   // as mke2fs -O, after those of Type: "^64bit,bigalloc"
	Extended  string   // as mke2fs -E
	Journal   string   // as mke2fs -J
	Cluster   int      // bytes, for bigalloc
	Dir       string   // a folder to copy into the image
	Args      []string // further arguments of mke2fs
	// Revision0 asks for the format from before there were features.
	Revision0 bool
	// External puts the journal on a device of its own, which takes root.
	External bool
	// Tune has the arguments of tune2fs for runs that follow.
	Tune [][]string
	// Mount has options that kernel mounts of the image use besides those
	// asked for.
	Mount string
	// KernelBug says what e2fsck finds in the image once the kernel has written
	// to it; "" if nothing.
	KernelBug string
	// KernelLoses says what contents the kernel loses of what is written to it,
	// so that they are compared between readers of the image only; "" if none.
	KernelLoses string
}

func (s Spec) String() string { return s.Name }

// baseFeatures are those of mke2fs 1.47 for each type, spelled out since
// distributions change mke2fs.conf.
var baseFeatures = map[string]string{
	"ext2": "ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file",
	"ext3": "has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file",
	"ext4": "has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize," +
		"ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file",
}

const (
	imageUUID   = "6b2f1c0e-5d7a-4c39-9b1e-0a4455667788"
	journalUUID = "0f1e2d3c-4b5a-4968-8776-655443322110"
	hashSeed    = "9a8b7c6d-5e4f-4a3b-8c2d-1e0f12345678"
)

// Args returns the arguments of mke2fs for an image at path, without those of
// an external journal.
func (s Spec) args(path string) ([]string, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if s.Type == "" {
		s.Type = "ext4"
	}
	base, ok := baseFeatures[s.Type]
	if !ok {
		return nil, fmt.Errorf("no recipe for type %q", s.Type)
	}
	def(&s.BlockSize, 4096)
	if s.Type == "ext4" {
		def(&s.InodeSize, 256)
	} else {
		def(&s.InodeSize, 128)
	}
	if s.Size == 0 {
		s.Size = 64 << 20
	}
	def(&s.Inodes, int(s.Size/8192))
	features := "none," + base
	if s.Features != "" {
		features += "," + s.Features
	}
	extended := "hash_seed=" + hashSeed + ",root_owner=0:0"
	if !strings.Contains(s.Extended, "lazy_itable_init") {
		extended += ",lazy_itable_init=0,lazy_journal_init=0"
	}
	if s.Extended != "" {
		extended += "," + s.Extended
	}
	var revision []string
	if s.Revision0 {
		if revision = Revision0(); revision[0] == "-E" { // of which the last one counts
			extended, revision = extended+","+revision[1], nil
		}
	}
	args := []string{"-q", "-F", "-T", "default", "-U", imageUUID, "-L", "testfs",
		"-b", strconv.Itoa(s.BlockSize), "-I", strconv.Itoa(s.InodeSize),
		"-N", strconv.Itoa(s.Inodes), "-O", features, "-E", extended, "-m", "1"}
	if s.Journal != "" {
		args = append(args, "-J", s.Journal)
	}
	if s.Cluster != 0 {
		args = append(args, "-C", strconv.Itoa(s.Cluster))
	}
	if s.Dir != "" {
		args = append(args, "-d", s.Dir)
	}
	args = append(append(args, revision...), s.Args...)
	return append(args, path, fmt.Sprint(s.Size/int64(s.BlockSize))), nil
}

// Revision0 returns the arguments by which C mke2fs makes a file system of
// revision 0: from 1.47.2 on -r is none of its options.
func Revision0() []string {
	if revision0ByExtended() {
		return []string{"-E", "revision=0"}
	}
	return []string{"-r", "0"}
}

var revision0ByExtended = sync.OnceValue(func() bool {
	tool, err := lookTool("mke2fs")
	if err != nil {
		return false
	}
	out, _ := outputOf(tool, "-V")
	var major, minor, patch int
	_, _ = fmt.Sscanf(out, "mke2fs %d.%d.%d", &major, &minor, &patch) // what is not there is 0
	return slices.Compare([]int{major, minor, patch}, []int{1, 47, 2}) >= 0
})

// An Image is a file that holds a file system.
type Image struct {
	Path    string
	Journal string // the file of the external journal, or ""
	Spec    Spec
	dirty   string // why the image need not be clean, or ""
}

// Mke2fs makes an image by the recipe, in a scratch folder that is removed when
// the test ends. Before that, the image is checked by C e2fsck, and the test
// fails if it is not clean.
func Mke2fs(t testing.TB, s Spec) *Image {
	t.Helper()
	img, err := make2fs(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func make2fs(t testing.TB, s Spec) (*Image, error) {
	t.Helper()
	if s.External {
		NeedRoot(t)
	}
	dir := Scratch(t)
	img := &Image{Path: filepath.Join(dir, "image"), Spec: s}
	args, err := s.args(img.Path)
	if err != nil {
		return nil, err
	}
	if s.External {
		img.Journal = filepath.Join(dir, "journal")
		bs := max(s.BlockSize, 1024)
		if s.BlockSize == 0 {
			bs = 4096
		}
		blocks := max(1024, 8<<20/bs)
		Run(t, "mke2fs", "-q", "-F", "-O", "journal_dev", "-U", journalUUID,
			"-b", strconv.Itoa(bs), img.Journal, strconv.Itoa(blocks))
		l, err := attachLoop(img.Journal, false)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		args = append([]string{"-J", "device=" + l.Name()}, args...)
	}
	if out, err := tryRun(t, "mke2fs", args...); err != nil {
		return nil, fmt.Errorf("mke2fs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, a := range s.Tune {
		if out, err := tryRun(t, "tune2fs", append(a[:len(a):len(a)], img.Path)...); err != nil {
			return nil, fmt.Errorf("tune2fs %s: %v\n%s", strings.Join(a, " "), err, out)
		}
	}
	img.checkAtEnd(t)
	return img, nil
}

// Adopt takes an image that a test made by other means, to be checked by C
// e2fsck when the test ends. The file stays the caller's.
func Adopt(t testing.TB, path string) *Image {
	img := &Image{Path: path}
	img.checkAtEnd(t)
	return img
}

// Copy returns a copy of the image, sparse as the image is, checked and removed
// at the end of the test like the image itself.
func (img *Image) Copy(t testing.TB) *Image {
	t.Helper()
	dir := Scratch(t)
	c := &Image{Path: filepath.Join(dir, "image"), Spec: img.Spec, dirty: img.dirty}
	if err := copySparse(c.Path, img.Path); err != nil {
		t.Fatal(err)
	}
	if img.Journal != "" {
		c.Journal = filepath.Join(dir, "journal")
		if err := copySparse(c.Journal, img.Journal); err != nil {
			t.Fatal(err)
		}
	}
	c.checkAtEnd(t)
	return c
}

// ExpectDirty says that the image may be left inconsistent, and why.
func (img *Image) ExpectDirty(why string) { img.dirty = why }

// ExpectClean takes an ExpectDirty back.
func (img *Image) ExpectClean() { img.dirty = "" }

// Check runs C e2fsck -fn on the image as it stands. Its error has what e2fsck
// printed. An image whose journal still has to be replayed is not clean.
func (img *Image) Check(t testing.TB) error {
	t.Helper()
	return E2fsck(t, img.Path, img.Journal)
}

func (img *Image) checkAtEnd(t testing.TB) {
	t.Cleanup(func() {
		if img.dirty != "" {
			return
		}
		if err := img.Check(t); err != nil {
			t.Errorf("image %s is left unclean: %v", img.Spec.Name, err)
		}
	})
}

// E2fsck runs C e2fsck -fn on an image, with its external journal unless that
// is "". Its error has what e2fsck printed. Where E2KIT_E2FSCK names ours, that
// runs too, and another verdict is an error.
func E2fsck(t testing.TB, image, journal string) error {
	t.Helper()
	tool := Tool(t, "e2fsck")
	return e2fsck(tool, image, journal)
}

func e2fsck(tool, image, journal string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	var sb [1024]byte
	if _, err := f.ReadAt(sb[:], 1024); err != nil {
		return err
	}
	const needsRecovery, orphanPresent = 0x4, 0x10000
	incompat, roCompat := binary.LittleEndian.Uint32(sb[0x60:]), binary.LittleEndian.Uint32(sb[0x64:])
	out, err := fsckOutput(tool, image, journal)
	if ours := os.Getenv("E2KIT_E2FSCK"); ours != "" {
		if out2, err2 := fsckOutput(ours, image, journal); (err == nil) != (err2 == nil) {
			return fmt.Errorf("e2fsck -fn of C and ours differ: %v\n%s\n%v\n%s", err, out, err2, out2)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("e2fsck -fn: %v\n%s", err, out)
	case incompat&needsRecovery != 0:
		return fmt.Errorf("the journal still needs recovery")
	case roCompat&orphanPresent != 0:
		return fmt.Errorf("the orphan file is not empty")
	case binary.LittleEndian.Uint16(sb[0x3a:])&1 == 0:
		return fmt.Errorf("the file system is not marked clean")
	}
	return nil
}

// copySparse copies the data of src to a new file dst and leaves holes holes.
func copySparse(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer out.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(st.Size()); err != nil {
		return err
	}
	for off := int64(0); off < st.Size(); {
		data, err := unix.Seek(int(in.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, hole-data)); err != nil {
			return err
		}
		off = hole
	}
	return out.Close()
}
