package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestJournalWrite has C e2fsck and ours replay what journal_write has written.
func TestJournalWrite(t *testing.T) {
	e2fsck := testfs.Tool(t, "e2fsck")
	dir := testfs.Scratch(t)
	data := filepath.Join(dir, "data")
	testfs.Run(t, "sh", "-c", `head -c 8192 /dev/urandom >"$1" && printf '\300\073\071\230escaped' >>"$1"`, "sh", data)
	for _, s := range []testfs.Spec{{Name: "ext4"}, {Name: "ext4-1k", BlockSize: 1024}, {Name: "ext3", Type: "ext3", BlockSize: 1024}, {Name: "32bit", Features: "^64bit"}} {
		for _, opts := range []string{"", " -c", " -c -v 2"} {
			t.Run(s.Name+opts, func(t *testing.T) {
				img := testfs.Mke2fs(t, s)
				script := filepath.Join(testfs.Scratch(t), "script")
				text := "jo" + opts + "\njw -b 12000-12009 " + data + "\njw -r 12001\njw -b 12100,12102 " + data + "\njw -b 12300 -c " + data + "\njc\n"
				if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				status, out, errs := debugfs("-w", "-f", script, img.Path)
				if opts == " -c -v 2" && s.Name == "ext4" && strings.Contains(errs, "checksums v2 and v3") {
					t.Skip(errs)
				}
				if status != 0 {
					t.Fatalf("%d: %s%s", status, out, errs)
				}
				other := img.Copy(t)
				if out, err := exec.Command(e2fsck, "-fy", img.Path).CombinedOutput(); err != nil && exec.Command(e2fsck, "-fn", img.Path).Run() != nil {
					t.Fatalf("e2fsck: %v: %s", err, out)
				}
				if status, _, errs := debugfs("-w", "-R", "journal_run", other.Path); status != 0 {
					t.Fatal(errs)
				}
				for _, b := range []int{12000, 12001, 12009, 12100, 12101, 12102, 12300} {
					_, want, _ := debugfs("-R", fmt.Sprint("bd ", b), img.Path)
					if _, got, _ := debugfs("-R", fmt.Sprint("bd ", b), other.Path); got != want {
						t.Errorf("block %d differs after journal_run and e2fsck", b)
					}
					zero := strings.Count(want, "\n") <= 3
					if should := b == 12001 || b == 12101 || b == 12300; zero != should && b != 12009 && s.BlockSize == 0 {
						t.Errorf("block %d is zero: %v", b, zero)
					}
				}
			})
		}
	}
}

// TestDirty looks at a file system whose journal is to be replayed: reading
// shows what there will be, and -n what there is.
func TestDirty(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "dirty", Size: 16 << 20})
	dir := testfs.Scratch(t)
	// What mkdir does to the image, as a transaction.
	after := img.Copy(t)
	if status, _, errs := debugfs("-w", "-R", "mkdir made", after.Path); status != 0 {
		t.Fatal(errs)
	}
	a, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(after.Path)
	if err != nil {
		t.Fatal(err)
	}
	_, journal, _ := debugfs("-R", "blocks <8>", img.Path)
	own := map[string]bool{}
	for _, w := range strings.Fields(journal) {
		own[w] = true
	}
	var list []string
	var changed []byte
	const bs = 4096
	for i := 1; i < len(a)/bs; i++ {
		if x := b[i*bs : (i+1)*bs]; !bytes.Equal(a[i*bs:(i+1)*bs], x) && !own[fmt.Sprint(i)] {
			list = append(list, fmt.Sprint(i))
			changed = append(changed, x...)
		}
	}
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(data, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("jo\njw -b "+strings.Join(list, ",")+" "+data+"\njc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := debugfs("-w", "-f", script, img.Path); status != 0 {
		t.Fatal(errs)
	}
	img.ExpectDirty("its journal is not replayed")
	if status, out, errs := debugfs("-R", "stat made", img.Path); status != 0 || !strings.Contains(out, "directory") {
		t.Errorf("%d: %s%s", status, out, errs)
	}
	if status, _, _ := debugfs("-n", "-R", "stat made", img.Path); status != 1 {
		t.Errorf("-n: status %d", status)
	}
	if _, out, _ := debugfs("-R", "feature", img.Path); !strings.Contains(out, "needs_recovery") {
		t.Errorf("feature says %s", out)
	}
	if status, _, errs := debugfs("-w", "-R", "mkdir more", img.Path); status != 1 || !strings.Contains(errs, "journal_run") {
		t.Errorf("mkdir: %d: %s", status, errs)
	}
	now, err := os.ReadFile(img.Path)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, errs := debugfs("-R", "cat made", img.Path); status != 0 {
		t.Error(errs)
	}
	if again, err := os.ReadFile(img.Path); err != nil || !bytes.Equal(now, again) {
		t.Error("reading changed the image")
	}
	if status, _, errs := debugfs("-w", "-R", "jr", img.Path); status != 0 {
		t.Error(errs)
	}
	if status, _, errs := debugfs("-n", "-R", "stat made", img.Path); status != 0 {
		t.Error(errs)
	}
}

// TestRecover deletes files by the kernel and takes them back from the journal.
func TestRecover(t *testing.T) {
	testfs.NeedRoot(t)
	for _, s := range []testfs.Spec{{Name: "ext4"}, {Name: "ext3", Type: "ext3", BlockSize: 1024}} {
		img := testfs.Mke2fs(t, s)
		m := testfs.KernelMount(t, img, "")
		dir := testfs.Scratch(t)
		inos := testfs.Run(t, "sh", "-c", `cd "$1" && seq 1 30000 >one && head -c 100000 /dev/urandom >two && cp one two "$2" && sync -f . && stat -c %i one two && sync -f . && rm one two && sync -f .`,
			"sh", m.Dir, dir)
		if err := m.Unmount(); err != nil {
			t.Fatal(err)
		}
		list := strings.Fields(inos)
		_, out, _ := debugfs("-R", "recover", img.Path)
		if !strings.HasSuffix(out, "2 files found.\n") {
			t.Errorf("%s: %s", s.Name, out)
		}
		for i, name := range []string{"one", "two"} {
			back := filepath.Join(dir, name+".back")
			if status, _, errs := debugfs("-R", "recover <"+list[i]+"> "+back, img.Path); status != 0 {
				t.Errorf("%s: %s: %s", s.Name, name, errs)
				continue
			}
			got, err := os.ReadFile(back)
			want, err2 := os.ReadFile(filepath.Join(dir, name))
			if err != nil || err2 != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s: %d bytes of %d, %v", s.Name, name, len(got), len(want), err)
			}
		}
		if status, _, errs := debugfs("-R", "recover <11> "+filepath.Join(dir, "x"), img.Path); status != 1 || !strings.Contains(errs, "no copy") {
			t.Errorf("%d: %s", status, errs)
		}
	}
}
