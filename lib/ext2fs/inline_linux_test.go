package ext2fs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func inlineSpecs() []testfs.Spec {
	return []testfs.Spec{
		{Name: "256", Size: 32 << 20, Features: "inline_data"},
		{Name: "512-1k", BlockSize: 1024, InodeSize: 512, Size: 32 << 20, Features: "inline_data"},
		{Name: "1024-nocsum", InodeSize: 1024, Size: 32 << 20, Features: "inline_data,^metadata_csum"},
		{Name: "4096-nojournal", InodeSize: 4096, Size: 64 << 20, Features: "inline_data,^has_journal"},
		{Name: "bigalloc", Size: 128 << 20, Features: "inline_data,bigalloc", Cluster: 16384},
		{Name: "noextents", Size: 32 << 20, Features: "inline_data,^extent,^64bit"},
		{Name: "1k-1k", BlockSize: 1024, InodeSize: 1024, Size: 32 << 20, Features: "inline_data,ea_inode"},
	}
}

func isInline(ip *Inode) bool {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.flag(ondisk.FlagInlineData)
}

// mustRead reads all of a file.
func mustRead(t *testing.T, ip *Inode) []byte {
	t.Helper()
	b := make([]byte, ip.Size()+10)
	n, err := ip.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b[:n]
}

// TestInlineModel writes, cuts and marks small files at random, and compares
// with bytes in memory, here and through the kernel; then the kernel goes on.
func TestInlineModel(t *testing.T) {
	for i, spec := range inlineSpecs() {
		t.Run(spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, spec)
			fs := openImage(t, img, Options{})
			rnd := rand.New(rand.NewPCG(uint64(i), 9))
			root, err := fs.Iget(ondisk.RootIno)
			if err != nil {
				t.Fatal(err)
			}
			const files = 12
			ips := make([]*Inode, files)
			want := make([][]byte, files)
			attrs := make([]map[string]string, files)
			for j := range ips {
				if ips[j], err = fs.Create(root, fmt.Sprint("f", j), 0o644, 0, Cred{}); err != nil {
					t.Fatal(err)
				}
				attrs[j] = map[string]string{}
			}
			sizes := []int{1, 30, 59, 60, 61, 100, spec.InodeSize / 2, spec.InodeSize, 200, 5000}
			inline := 0
			for step := range 1500 {
				j := rnd.IntN(files)
				ip := ips[j]
				switch k := rnd.IntN(10); {
				case k < 5:
					n := rnd.IntN(sizes[rnd.IntN(len(sizes))] + 1)
					off := 0
					if rnd.IntN(2) == 0 {
						off = rnd.IntN(len(want[j]) + 20)
					}
					p := bytes.Repeat([]byte{byte(step)}, n)
					if _, err := ip.WriteAt(p, int64(off)); err != nil {
						t.Fatalf("step %d: write: %v", step, err)
					}
					if grow := off + n - len(want[j]); grow > 0 && n > 0 {
						want[j] = append(want[j], make([]byte, grow)...)
					}
					if n > 0 {
						copy(want[j][off:], p)
					}
				case k < 8:
					n := rnd.IntN(sizes[rnd.IntN(len(sizes))] + 1)
					if rnd.IntN(3) == 0 {
						n = 0
					}
					if err := ip.Setattr(&SetAttr{Valid: SetSize, Size: int64(n)}); err != nil {
						t.Fatalf("step %d: truncate to %d: %v", step, n, err)
					}
					if n < len(want[j]) {
						want[j] = want[j][:n:n]
					} else {
						want[j] = append(want[j], make([]byte, n-len(want[j]))...)
					}
				case k < 9:
					name := fmt.Sprint("user.", rnd.IntN(3))
					v := bytes.Repeat([]byte("v"), rnd.IntN(60))
					if err := ip.Setxattr(name, v, 0, false); err != nil {
						t.Fatalf("step %d: setxattr: %v", step, err)
					}
					attrs[j][name] = string(v)
				default:
					name := fmt.Sprint("user.", rnd.IntN(3))
					_ = ip.Removexattr(name)
					delete(attrs[j], name)
				}
				if got := mustRead(t, ip); !bytes.Equal(got, want[j]) {
					t.Fatalf("step %d: file %d is %.80q (%d), want %.80q (%d)", step, j, got, len(got), want[j], len(want[j]))
				}
				if isInline(ip) {
					inline++
				}
			}
			if inline == 0 || inline == 1500 {
				t.Errorf("inline in %d steps of 1500", inline)
			}
			for j, ip := range ips {
				sameXattrs(t, fmt.Sprint("f", j), ourXattrs(t, ip), attrs[j])
				ip.Put()
			}
			root.Put()
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
			if err := img.Check(t); err != nil {
				t.Fatal(err)
			}
			if os.Getuid() != 0 {
				return
			}
			if err := testfs.Supported(t, spec); err != nil {
				t.Skip(err)
			}
			m := testfs.KernelMount(t, img, "")
			for j := range files {
				p := filepath.Join(m.Dir, fmt.Sprint("f", j))
				got, err := os.ReadFile(p)
				if err != nil || !bytes.Equal(got, want[j]) {
					t.Errorf("the kernel reads %.80q (%d) of file %d, want %.80q (%d): %v", got, len(got), j, want[j], len(want[j]), err)
				}
				sameXattrs(t, p, kernelXattrs(t, p), attrs[j])
				var st unix.Stat_t
				if err := unix.Stat(p, &st); err != nil {
					t.Fatal(err)
				}
				n := int64(rnd.IntN(int(st.Size) + 100))
				f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Fatal(err)
				}
				// Linux 6.18 crashes if an inline file is made longer that has not
				// been open for writing since it was read (jbd2_journal_file_inode).
				if err := f.Truncate(n); err != nil {
					t.Fatal(err)
				}
				if _, err := f.Write(bytes.Repeat([]byte("k"), rnd.IntN(50))); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			unmount(t, m)
			// Only a second mount tells what the kernel has stored: it loses what is
			// appended to an inline file that has just been made longer.
			m = testfs.KernelMount(t, img, "ro")
			for j := range files {
				if want[j], err = os.ReadFile(filepath.Join(m.Dir, fmt.Sprint("f", j))); err != nil {
					t.Fatal(err)
				}
			}
			unmount(t, m)
			fs = openImage(t, img, Options{ReadOnly: true})
			for j := range files {
				root, err := fs.Iget(ondisk.RootIno)
				if err != nil {
					t.Fatal(err)
				}
				ip, err := fs.Lookup(root, fmt.Sprint("f", j))
				if err != nil {
					t.Fatal(err)
				}
				if got := mustRead(t, ip); !bytes.Equal(got, want[j]) {
					t.Errorf("file %d of the kernel: %.80q (%d), want %.80q (%d)", j, got, len(got), want[j], len(want[j]))
				}
				sameXattrs(t, fmt.Sprint("f", j), ourXattrs(t, ip), attrs[j])
				ip.Put()
				root.Put()
			}
		})
	}
}
