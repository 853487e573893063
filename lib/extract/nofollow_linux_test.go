package extract

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestSwapped puts a symbolic link in the place of a fifo that was just made: the
// file that it leads to keeps its mode.
func TestSwapped(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	raw := make(ondisk.RawInode, 256)
	raw.Base().Mode.Set(ondisk.ModeFIFO | 0o777)
	m := &maker{}
	if err := m.nameAttrs(&node{path: "link", raw: raw}, fd); err == nil {
		t.Error("the mode of a link was changed")
	}
	if st, err := os.Stat(outside); err != nil || st.Mode() != 0o600 {
		t.Errorf("the file outside has mode %v, %v", st.Mode(), err)
	}
	if err := m.nameAttrs(&node{path: "fifo", raw: raw}, fd); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "fifo")); err != nil || st.Mode().Perm() != 0o777 {
		t.Errorf("the fifo has mode %v, %v", st.Mode(), err)
	}
}
