package populate

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
)

// overlayOpaque marks a directory of a layer that hides those below.
const overlayOpaque = "trusted.overlay.opaque"

// stack makes layers of directories as overlayfs takes them, the lowest first:
// each kind of entry, and each way to hide and to replace one.
func stack(t testing.TB, at string) (layers []string) {
	t.Helper()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var dir string
	p := func(name string) string { return filepath.Join(dir, name) }
	layer := func() {
		dir = filepath.Join(at, fmt.Sprint("layer", len(layers)))
		layers = append(layers, dir)
		do(os.Mkdir(dir, 0o755))
	}
	mkdir := func(name string, mode os.FileMode) {
		do(os.Mkdir(p(name), 0o700))
		do(os.Chmod(p(name), mode))
	}
	file := func(name, data string) { do(os.WriteFile(p(name), []byte(data), 0o640)) }
	whiteout := func(name string) { do(unix.Mknod(p(name), unix.S_IFCHR, 0)) }
	opaque := func(name string) { do(unix.Lsetxattr(p(name), overlayOpaque, []byte("y"), 0)) }

	layer()
	everything(t, dir)
	do(os.Remove(p("sock")))  // archives have none
	do(os.Remove(p("fifo2"))) // GNU tar has further names of files only
	for _, d := range []string{"etc", "etc/conf.d", "data", "data/old", "gone", "gone/deep"} {
		mkdir(d, 0o755)
	}
	for _, f := range []string{"etc/keep", "etc/change", "etc/conf.d/a", "data/old/x", "data/y", "gone/deep/z", "to-dir", "to-link"} {
		file(f, "below: "+f)
	}

	layer()
	mkdir("etc", 0o751) // with attributes of its own
	do(unix.Lsetxattr(p("etc"), "user.layer", []byte("1"), 0))
	do(os.Chown(p("etc"), 11, 22))
	file("etc/change", "above")
	mkdir("data", 0o750)
	opaque("data")
	file("data/new", "only this is left")
	whiteout("gone")
	whiteout("large") // a file with data, one of several names, a link, a device
	whiteout("zlink")
	whiteout("fast")
	whiteout("chr")
	mkdir("to-dir", 0o711)
	file("to-dir/inside", "a file was here")
	do(os.Symlink("etc/keep", p("to-link")))
	mkdir("dir", 0o755)
	opaque("dir")
	mkdir("dir/sub", 0o755)
	file("dir/sub/new", "")
	do(os.Link(p("dir/sub/new"), p("dir/twin")))
	file("short-lived", "for one layer")
	mkdir("sticky", os.ModeSticky|0o777)
	for i := range 350 { // half of a large directory
		whiteout(fmt.Sprintf("sticky/a name that is rather long, number %d", 2*i))
	}

	layer()
	whiteout("short-lived")
	mkdir("gone", 0o700) // there again, empty
	do(os.Symlink("nowhere", p("zlink")))
	do(unix.Mknod(p("large"), unix.S_IFIFO|0o600, 0))
	mkdir("data", 0o755)
	mkdir("data/old", 0o755)
	file("data/old/x", "back")
	mkdir("etc", 0o755)
	mkdir("etc/conf.d", 0o500)
	whiteout("etc/conf.d/a")
	return layers
}

// merged mounts layers by overlayfs, and returns what the kernel shows of a copy
// of that.
func merged(t testing.TB, layers []string) testfs.Tree {
	t.Helper()
	at := filepath.Join(testfs.Scratch(t), "merged")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	top := slices.Clone(layers)
	slices.Reverse(top)
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(top, ":")); err != nil {
		testfs.Missing(t, "no overlayfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	// In the mount itself links and sizes of directories are those of layers.
	flat := kernelDir(t)
	if out, err := exec.Command("cp", "-a", at+"/.", flat).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	return testfs.MustSnapshot(t, flat)
}

// Layers, with entries of every kind, give what overlayfs makes of them.
func TestOCIKernel(t *testing.T) {
	testfs.NeedRoot(t)
	layers := stack(t, kernelDir(t))
	want := merged(t, layers)
	l := &ociLayout{t, t.TempDir()}
	var archives [][]byte
	for _, dir := range layers {
		archives = append(archives, whiteoutTar(t, dir))
	}
	l.index(l.image("amd64", archives...))
	img := image(t, 256<<20)
	fill(t, img, OCI(l.dir, OCIOptions{Platform: "linux/amd64"}), Options{})
	sameTree(t, "what overlayfs shows of the layers and the image", want, shown(t, img), testfs.Atime)

	// A layout that was written again, with other files around, is the same.
	if err := os.WriteFile(filepath.Join(l.dir, "blobs/sha256/0000"), []byte("of another image"), 0o644); err != nil {
		t.Fatal(err)
	}
	blank := image(t, 256<<20)
	sums := map[string]string{}
	for _, how := range []string{"first", "again", "by one"} {
		img := blank.Copy(t)
		o := Options{Reproducible: true}
		if how == "by one" {
			o.Workers = 1
		}
		fill(t, img, OCI(l.dir, OCIOptions{Platform: "linux/amd64"}), o)
		sums[how] = sum(t, img.Path)
	}
	if sums["again"] != sums["first"] || sums["by one"] != sums["first"] {
		t.Errorf("the sums differ: %v", sums)
	}
}

// whiteoutTar archives a layer of overlayfs as an image has it: what hides
// others becomes a file whose name says so.
func whiteoutTar(t testing.TB, dir string) []byte {
	t.Helper()
	at := kernelDir(t)
	if out, err := exec.Command("cp", "-a", dir+"/.", at).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	var found []string // names to be put in, by their directory
	err := filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			found = append(found, p)
		}
		if d.IsDir() {
			if _, err := unix.Lgetxattr(p, overlayOpaque, make([]byte, 8)); err == nil {
				found = append(found, p+"/")
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		d, name := filepath.Split(p)
		var st unix.Stat_t
		if err := unix.Stat(d, &st); err != nil {
			t.Fatal(err)
		}
		if name == "" {
			err, name = unix.Removexattr(d, overlayOpaque), ".wh..opq"
		} else {
			err = os.Remove(p)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(d, ".wh."+name), nil, 0o644)
		}
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, d, []unix.Timespec{st.Atim, st.Mtim}, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(gnuTar(t, at, "-S", "--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--selinux"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An archive gives the same bytes in whatever order its entries come.
func TestTarReproducible(t *testing.T) {
	testfs.NeedRoot(t)
	src := kernelDir(t)
	everything(t, src)
	var names bytes.Buffer
	if err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(src, p); rel != "lost+found" && rel != "sock" {
			fmt.Fprintf(&names, "./%s\x00", rel)
		} else if d.IsDir() {
			return fs.SkipDir
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.TrimSuffix(names.String(), "\x00"), "\x00")
	blank := image(t, 256<<20)
	want := ""
	for i := range 4 {
		at := testfs.Scratch(t)
		switch i {
		case 1:
			slices.Reverse(list)
		case 2, 3:
			rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		}
		if err := os.WriteFile(filepath.Join(at, "names"), []byte(strings.Join(list, "\x00")+"\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		archive := filepath.Join(at, "archive.tar")
		args := []string{"-C", src, "--numeric-owner", "--format=posix", "--xattrs", "--xattrs-include=*", "--acls",
			"--no-recursion", "--null", "-T", filepath.Join(at, "names"), "-cf", archive}
		if i == 3 {
			args = append(args, "-S")
		}
		if out, err := exec.Command(testfs.Tool(t, "tar"), args...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		img := blank.Copy(t)
		fill(t, img, Tar(archive), Options{Reproducible: true})
		got := sum(t, img.Path)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("order %d has sum %s, the first one %s", i, got, want)
		}
	}
}

// A large tree: the kernel shows the same in the image, which has the size that
// was found for it; another copy of it gives the same bytes. E2KIT_TREE_FILES
// says how many files; 200000 take minutes.
func TestDirHuge(t *testing.T) {
	testfs.NeedRoot(t)
	files := 20_000
	if s := os.Getenv("E2KIT_TREE_FILES"); s != "" {
		var err error
		if files, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	const perDir = 400
	at := testfs.Scratch(t)
	// The second copy is made in another order.
	var srcs []string
	for i := range 2 {
		src := filepath.Join(at, fmt.Sprint("src", i))
		srcs = append(srcs, src)
		order := make([]int, files)
		for k := range order {
			order[k] = k
		}
		if i == 1 {
			rand.Shuffle(files, func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		huge(t, src, order, perDir)
	}
	format := func(dev blockdev.Device, inodes uint64) error {
		o := ext2fs.DefaultFormat()
		o.UUID, o.HashSeed, o.Time, o.ReservedRatio = [16]byte{1}, [16]byte{2}, 1700000000, 0
		o.Inodes = uint32(inodes) + 1024
		_, err := ext2fs.Format(dev, o)
		return err
	}
	var size Size
	sums := []string{}
	for i, src := range srcs {
		tree, err := Load(t.Context(), Dir(src), Options{Reproducible: true, Workers: 1 + 6*i})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if i == 0 {
			if size, err = tree.Fit(t.Context(), func(n int64, inodes uint64) (blockdev.Device, error) {
				dev := blockdev.NewMem(n)
				return dev, format(dev, inodes)
			}, SizeOptions{BlockSize: 4096}); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(at, fmt.Sprint("image", i))
		fits(t, src, tree, size, path, format)
		sums = append(sums, sum(t, path))
	}
	if sums[0] != sums[1] {
		t.Error("two copies of the same files give different bytes")
	}
	want := testfs.MustSnapshot(t, srcs[0])
	if len(want) < files {
		t.Fatalf("only %d names", len(want))
	}
	img := testfs.Adopt(t, filepath.Join(at, "image0"))
	sameTree(t, "a large tree and the image of it", want, shown(t, img), testfs.Atime|testfs.Holes)
	t.Logf("%d names, %d MiB", len(want), size.Bytes>>20)
}

// huge makes the files of those numbers: small ones, some with attributes, some
// links.
func huge(t testing.TB, dir string, order []int, perDir int) {
	t.Helper()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	when := unix.Timespec{Sec: 1600000000, Nsec: 5}
	keep := func(p string) {
		do(unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW))
	}
	in := func(i int) string { return filepath.Join(dir, fmt.Sprintf("d%03d", i/perDir)) }
	for i := 0; i < len(order); i += perDir {
		do(os.MkdirAll(in(i), 0o755))
	}
	data := bytes.Repeat([]byte("one of a great many files "), 100)
	var links [][2]string
	for _, i := range order {
		p := filepath.Join(in(i), fmt.Sprintf("file-%06d", i))
		switch {
		case i%50 == 7:
			do(os.Symlink(fmt.Sprintf("file-%06d", i-1), p))
		case i%50 == 8: // when the file is there
			links = append(links, [2]string{filepath.Join(in(i), fmt.Sprintf("file-%06d", i-2)), p})
			continue
		default:
			f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(0o600+i%8))
			do(err)
			w := bufio.NewWriter(f)
			fmt.Fprintln(w, i)
			w.Write(data[:i%len(data)])
			do(w.Flush())
			do(f.Close())
			if i%20 == 0 {
				do(unix.Setxattr(p, "user.number", fmt.Append(nil, i%7), 0))
			}
			if i%30 == 0 {
				do(os.Chown(p, i%5000, i%77))
			}
		}
		keep(p)
	}
	for _, l := range links {
		do(os.Link(l[0], l[1]))
	}
	for i := 0; i < len(order); i += perDir {
		keep(in(i))
	}
	keep(dir)
}
