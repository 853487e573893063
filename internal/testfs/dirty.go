//go:build linux

package testfs

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Dirty is a recipe for an image that the kernel left in need of recovery.
type Dirty struct {
	Name string
	Spec Spec
	// Prepare changes the image before it is mounted.
	Prepare func(t testing.TB, img *Image)
	Mount   string // options of the mount that is cut short
	// Load changes the mounted file system. What it opens stays open until the
	// mount is cut if it is handed to keep.
	Load func(dir string, keep func(fd int)) error
	// Cut says how the mount ends.
	Cut Cut
	// Craft changes the image afterwards, for what a load cannot time.
	Craft func(t testing.TB, img *Image)
	// Compat and Incompat are features that the journal's superblock must have,
	// so that the recipe shows what it says.
	Compat, Incompat uint32
	// FastCommits says that fast commits must be left, Revokes that revoke
	// blocks must.
	FastCommits, Revokes bool
}

// A Cut is a way to end a mount without a clean unmount.
type Cut int

const (
	CutNoFlush Cut = iota // EXT4_IOC_SHUTDOWN without the running transaction
	CutFlush              // EXT4_IOC_SHUTDOWN after committing it
	CutCopy               // a copy of the image while it is mounted
)

// Make makes the image. It need not be clean when the test ends; a test that
// recovers it says ExpectClean.
func (d Dirty) Make(t testing.TB) *Image {
	t.Helper()
	NeedRoot(t)
	s := d.Spec
	s.Name = d.Name
	img := Mke2fs(t, s)
	img.ExpectDirty("the kernel was cut short")
	if d.Prepare != nil {
		d.Prepare(t, img)
	}
	m := KernelMount(t, img, d.Mount)
	var open []int
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	if err := d.Load(m.Dir, func(fd int) { open = append(open, fd) }); err != nil {
		t.Fatalf("%s: %v", d.Name, err)
	}
	if d.Cut == CutCopy {
		img = img.Copy(t)
	} else if err := shutdown(m.Dir, d.Cut); err != nil {
		t.Fatalf("%s: EXT4_IOC_SHUTDOWN: %v", d.Name, err)
	}
	for _, fd := range open {
		unix.Close(fd)
	}
	open = nil
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if d.Craft != nil {
		d.Craft(t, img)
	}
	return img
}

// Recovered returns the tree that the kernel shows after it has recovered a
// copy of img.
func Recovered(t testing.TB, img *Image) Tree {
	t.Helper()
	c := img.Copy(t)
	m := KernelMount(t, c, "noatime") // to read a link would change it
	tree := MustSnapshot(t, m.Dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	// Without a journal the kernel recovers nothing: e2fsck has to.
	if _, err := c.JournalSuper(); err == nil {
		c.ExpectClean()
	}
	return tree
}

func shutdown(dir string, cut Cut) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const extIocShutdown = 0x8004587d
	flags := uint32(2) // EXT4_GOING_FLAGS_NOLOGFLUSH
	if cut == CutFlush {
		flags = 1 // EXT4_GOING_FLAGS_LOGFLUSH
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), extIocShutdown, uintptr(unsafe.Pointer(&flags)))
	if errno != 0 {
		return errno
	}
	return nil
}

// DirtyImages returns the recipes that recovery is tested over.
func DirtyImages() []Dirty {
	nocsum := "^metadata_csum"
	return []Dirty{
		{Name: "ordered", Load: mixedLoad, Incompat: jIncompatCsumV3 | jIncompat64Bit},
		{Name: "ordered-flushed", Load: mixedLoad, Cut: CutFlush, Incompat: jIncompatCsumV3},
		{Name: "ordered-live-copy", Load: mixedLoad, Cut: CutCopy, Incompat: jIncompatCsumV3},
		{Name: "data-journal", Mount: "data=journal", Load: mixedLoad},
		{Name: "data-journal-escaped", Mount: "data=journal", Spec: Spec{Features: nocsum}, Load: escapedLoad},
		{Name: "data-writeback", Mount: "data=writeback", Load: mixedLoad},
		{Name: "csum-none-64bit", Spec: Spec{Features: nocsum}, Load: mixedLoad, Incompat: jIncompat64Bit},
		{Name: "csum-none-32bit", Spec: Spec{Features: nocsum + ",^64bit"}, Load: mixedLoad},
		{Name: "csum-v1-32bit", Spec: Spec{Features: nocsum + ",^64bit"}, Mount: "journal_checksum", Load: mixedLoad, Compat: jCompatChecksum},
		{Name: "csum-v1-64bit", Spec: Spec{Features: nocsum}, Mount: "journal_checksum", Load: mixedLoad, Compat: jCompatChecksum, Incompat: jIncompat64Bit},
		{Name: "csum-v2", Load: baseLoad, Cut: CutFlush, Craft: craftJournal("2"), Incompat: jIncompatCsumV2},
		{Name: "csum-v3-crafted", Load: baseLoad, Cut: CutFlush, Craft: craftJournal("3"), Incompat: jIncompatCsumV3},
		{Name: "csum-v3-32bit", Spec: Spec{Features: "^64bit"}, Load: mixedLoad, Incompat: jIncompatCsumV3},
		{Name: "async-commit", Mount: "data=writeback,journal_async_commit", Load: mixedLoad, Incompat: jIncompatAsyncCommit},
		{Name: "async-commit-v1", Mount: "data=writeback,journal_async_commit", Spec: Spec{Features: nocsum}, Load: mixedLoad, Compat: jCompatChecksum, Incompat: jIncompatAsyncCommit},
		{Name: "fast-commit", Spec: Spec{Features: "fast_commit"}, Load: fastCommitLoad, Incompat: jIncompatFastCommit, FastCommits: true},
		{Name: "fast-commit-1k-nocsum", Spec: Spec{Features: "fast_commit," + nocsum, BlockSize: 1024}, Load: fastCommitLoad, Incompat: jIncompatFastCommit, FastCommits: true},
		{Name: "orphans", Load: orphanLoad},
		{Name: "orphans-1k-ext3", Spec: Spec{Type: "ext3", BlockSize: 1024}, Load: orphanLoad},
		{Name: "orphan-file", Spec: Spec{Features: "orphan_file"}, Load: orphanLoad},
		{Name: "orphan-truncate", Load: baseLoad, Cut: CutFlush, Craft: craftTruncate},
		{Name: "orphan-truncate-ext3", Spec: Spec{Type: "ext3", BlockSize: 1024}, Load: baseLoad, Cut: CutFlush, Craft: craftTruncate},
		{Name: "revokes", Load: revokeLoad, Revokes: true, Incompat: jIncompatRevoke},
		{Name: "revokes-1k-32bit", Spec: Spec{Features: nocsum + ",^64bit", BlockSize: 1024}, Load: revokeLoad, Revokes: true, Incompat: jIncompatRevoke},
		{Name: "revokes-journaled-files", Mount: "nodelalloc", Spec: Spec{Features: nocsum, Size: 128 << 20, Journal: "size=40"}, Prepare: prepareJournaled, Load: dataRevokeLoad, Revokes: true, Incompat: jIncompatRevoke},
		{Name: "external", Spec: Spec{External: true}, Load: mixedLoad},
		{Name: "external-revokes-1k", Spec: Spec{External: true, BlockSize: 1024}, Load: revokeLoad, Revokes: true},
		{Name: "small-journal", Spec: Spec{BlockSize: 1024, Journal: "size=1"}, Load: wrapLoad},
		{Name: "ext3", Spec: Spec{Type: "ext3"}, Load: mixedLoad},
		{Name: "bigalloc", Spec: Spec{Features: "bigalloc", Cluster: 16384, Size: 128 << 20, Inodes: 8192}, Load: mixedLoad},
		{Name: "inline", Spec: Spec{Features: "inline_data,ea_inode"}, Load: mixedLoad},
		{Name: "ext2-nojournal", Spec: Spec{Type: "ext2"}, Load: syncedLoad, Cut: CutCopy},
	}
}
