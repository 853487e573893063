package ext2fs

import (
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// An operation happens at one time, read while it runs: to read the clock may be
// what takes it longest.
func TestOperationClock(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "clock", Size: 16 << 20})
	reads, clock := 0, time.Unix(1_700_000_000, 0)
	fs := openImage(t, img, Options{CommitInterval: -1, Now: func() time.Time {
		reads++
		clock = clock.Add(time.Second)
		return clock
	}})
	root, err := fs.Iget(ondisk.RootIno)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Put()
	var ip *Inode
	for _, op := range []struct {
		name  string
		reads int
		do    func() error
		times func(dir, file *Attr) []ondisk.Time // that it sets
	}{
		{"create", 1, func() error {
			ip, err = fs.Create(root, "a", ondisk.ModeReg|0o644, 0, Cred{})
			return err
		}, func(d, f *Attr) []ondisk.Time {
			return []ondisk.Time{d.Mtime, d.Ctime, f.Atime, f.Mtime, f.Ctime, f.Crtime}
		}},
		{"link", 1, func() error { return fs.Link(ip, root, "b") },
			func(d, f *Attr) []ondisk.Time { return []ondisk.Time{d.Mtime, d.Ctime, f.Ctime} }},
		{"rename", 1, func() error { return fs.Rename(root, "a", root, "c", 0, Cred{}) },
			func(d, f *Attr) []ondisk.Time { return []ondisk.Time{d.Mtime, d.Ctime, f.Ctime} }},
		{"setxattr", 1, func() error { return ip.Setxattr("user.a", []byte("b"), 0, false) },
			func(_, f *Attr) []ondisk.Time { return []ondisk.Time{f.Ctime} }},
		{"unlink", 1, func() error { return fs.Unlink(root, "b") },
			func(d, f *Attr) []ondisk.Time { return []ondisk.Time{d.Mtime, d.Ctime, f.Ctime} }},
	} {
		before := clock
		reads = 0
		if err := op.do(); err != nil {
			t.Fatalf("%s: %v", op.name, err)
		}
		if reads != op.reads {
			t.Errorf("%s reads the clock %d times, want %d", op.name, reads, op.reads)
		}
		var d, f Attr
		root.Attr(&d)
		ip.Attr(&f)
		for i, at := range op.times(&d, &f) {
			if at.Sec <= before.Unix() || at.Sec > clock.Unix() {
				t.Errorf("%s: time %d is %d, and it ran from %d to %d", op.name, i, at.Sec, before.Unix()+1, clock.Unix())
			}
		}
	}
	ip.Put()
}
