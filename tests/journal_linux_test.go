package tests

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestJournalSearch mounts a file system whose journal is on another device
// without saying which: it is found by the number that the superblock remembers,
// and by its UUID where that is another device's. Without it the mount is
// refused.
func TestJournalSearch(t *testing.T) {
	bin := server(t)
	journal := filepath.Join(testfs.Scratch(t), "journal")
	testfs.Run(t, "mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096", journal, "2048") // a UUID of its own
	dev := testfs.AttachLoop(t, journal)
	img := testfs.Mke2fs(t, testfs.Spec{Name: "external", Size: 32 << 20, Journal: "device=" + dev.Name()})
	bare := &testfs.Image{Path: img.Path, Spec: img.Spec} // to mount without a word of the journal
	img.Journal = journal

	refused := func(why string) {
		t.Helper()
		before := sum(t, img)
		mnt := filepath.Join(testfs.Scratch(t), "mnt")
		if err := os.Mkdir(mnt, 0o755); err != nil {
			t.Fatal(err)
		}
		m, err := testfs.StartFuse(mnt, exec.Command(bin, "-f", img.Path, mnt))
		var exit *exec.ExitError
		switch {
		case err == nil:
			t.Error("mounted without a journal")
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
		case !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(err.Error(), why) ||
			!strings.Contains(err.Error(), "-o journal_path="):
			t.Error(err)
		}
		if sum(t, img) != before {
			t.Error("the image changed")
		}
	}
	for _, hint := range []string{"as it is", "0", "0x700", "0x9999"} {
		if hint != "as it is" {
			testfs.Run(t, "debugfs", "-w", "-R", "ssv journal_dev "+hint, img.Path)
		}
		m := mount(t, bare, "")
		if err := os.WriteFile(filepath.Join(m.Dir, "file"+hint), []byte(hint), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := m.Unmount(); err != nil {
			t.Fatal(err)
		}
		if err := img.Check(t); err != nil {
			t.Fatal(err)
		}
	}
	again := testfs.AttachLoop(t, journal)
	refused("each of /dev/loop")
	for _, d := range []*os.File{dev, again} {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	refused("it is on another device")
	k := testfs.KernelMount(t, img, "ro")
	if got, err := os.ReadFile(filepath.Join(k.Dir, "file0x700")); err != nil || string(got) != "0x700" {
		t.Errorf("%q, %v", got, err)
	}
}
