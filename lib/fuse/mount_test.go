//go:build linux

package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMount(t *testing.T) {
	x := mountMem(t, newMemFS(), MountOptions{}, Config{})
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(info), x.dir+" rw,relatime - fuse.e2kit memfs-test rw,user_id=0,group_id=0") {
		t.Errorf("mountinfo does not show the mount as it should:\n%s", info)
	}
	name := filepath.Join(x.dir, "file")
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("stat of no file: %v", err)
	}
	data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18) // 4 MiB
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	// Past the page cache, so that READ is tested too.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := alignedBuf(len(data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read back: %v, equal %v", err, bytes.Equal(got, data))
	}
	f.Close()
	names, err := os.ReadDir(x.dir)
	if err != nil || len(names) != 1 || names[0].Name() != "file" {
		t.Fatalf("ReadDir: %v, %v", names, err)
	}
	if n := x.calls[OpWrite].Load(); n > 16 {
		t.Errorf("%d WRITEs for 4 MiB: MaxPages was not agreed on", n)
	}
	neg := x.c.Negotiated()
	if neg.Minor < MinMinor || neg.Flags&WritebackCache == 0 || int(neg.MaxWrite) != MaxPagesLimit()*hostPage {
		t.Errorf("negotiated %+v", neg)
	}
}

// Without OPEN, O_TRUNC arrives as SETATTR.
func TestTruncate(t *testing.T) {
	x := mountMem(t, newMemFS(), MountOptions{}, Config{Flags: LocalFS})
	name := filepath.Join(x.dir, "f")
	if err := os.WriteFile(name, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f := x.file(3)
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.data) != 0 {
		t.Errorf("the server still has %q", f.data)
	}
}

// Ops that nobody handles fail with ENOSYS, and the kernel does without.
func TestNoHandler(t *testing.T) {
	x := mountMem(t, newMemFS(), MountOptions{}, Config{})
	if err := os.Mkdir(filepath.Join(x.dir, "d"), 0o755); !errors.Is(err, syscall.ENOSYS) {
		t.Errorf("mkdir: %v", err)
	}
}

func TestParallel(t *testing.T) {
	m := newMemFS()
	m.valid = 0 // so that each stat is a request
	x := mountMem(t, m, MountOptions{}, Config{Flags: memFlags &^ WritebackCache})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			name := filepath.Join(x.dir, fmt.Sprintf("file%d", i))
			want := make([]byte, 300000)
			f, err := os.Create(name)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			f.WriteAt(want, 0)
			for range 60 {
				off, n := rng.IntN(len(want)), rng.IntN(100000)
				n = min(n, len(want)-off)
				for j := range want[off : off+n] {
					want[off+j] = byte(rng.Uint32())
				}
				if _, err := f.WriteAt(want[off:off+n], int64(off)); err != nil {
					t.Error(err)
				}
				if st, err := os.Stat(name); err != nil || st.Size() != int64(len(want)) {
					t.Errorf("stat: %v", err)
				}
				got, err := os.ReadFile(name)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: read back %d bytes, %v", name, len(got), err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

// While handlers block, workers are added, up to the bound.
func TestGrow(t *testing.T) {
	m := newMemFS()
	m.slow = 100 * time.Millisecond
	x := mountMem(t, m, MountOptions{}, Config{Workers: 1, MaxWorkers: 8})
	name := filepath.Join(x.dir, "f")
	if err := os.WriteFile(name, make([]byte, 64<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECT, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.ReadAt(alignedBuf(4096), int64(i)<<12); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if d := time.Since(start); d > 600*time.Millisecond {
		t.Errorf("8 reads of 100 ms each took %v", d)
	}
}

// A handler may answer later, from elsewhere, and unmounting waits for it.
func TestDeferred(t *testing.T) {
	x := mountMem(t, newMemFS(), MountOptions{}, Config{Workers: 1, Handlers: Handlers{OpStatfs: func(r *Request) {
		go func() {
			time.Sleep(20 * time.Millisecond)
			Out[StatfsOut](r).St = Kstatfs{Bsize: 4096, Frsize: 4096, Namelen: 99}
			r.Reply(0)
		}()
	}}})
	var wg sync.WaitGroup
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var st syscall.Statfs_t
			if err := syscall.Statfs(x.dir, &st); err != nil || st.Namelen != 99 {
				t.Errorf("statfs: %v, %d", err, st.Namelen)
			}
		}()
	}
	wg.Wait()
}

func TestNotify(t *testing.T) {
	x := mountMem(t, newMemFS(), MountOptions{}, Config{})
	name := filepath.Join(x.dir, "f")
	if err := os.WriteFile(name, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Stat(name) // the number of blocks may be unknown yet
	before := x.calls[OpGetattr].Load()
	os.Stat(name)
	if n := x.calls[OpGetattr].Load(); n != before {
		t.Errorf("attributes are not cached: %d requests", n-before)
	}
	if err := x.c.InvalInode(3, 0, 0); err != nil {
		t.Error(err)
	}
	os.Stat(name)
	if n := x.calls[OpGetattr].Load(); n == before {
		t.Error("attributes are still cached")
	}
	if err := x.c.Store(3, 0, []byte("HELLO")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "HELLO" {
		t.Errorf("stored data reads %q, %v", b, err)
	}
	before = x.calls[OpLookup].Load()
	if err := x.c.InvalEntry(RootID, "f", 0); err != nil {
		t.Error(err)
	}
	os.Stat(name)
	if n := x.calls[OpLookup].Load(); n == before {
		t.Error("the entry is still cached")
	}
	if err := x.c.InvalInode(99, 0, 0); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("invalidating an unknown node: %v", err)
	}
	if x.c.Negotiated().Minor >= 45 {
		if err := x.c.Prune([]uint64{3, 77}); err != nil {
			t.Errorf("prune: %v", err)
		}
	}
}

func TestMountOptions(t *testing.T) {
	var o MountOptions
	for _, s := range []string{"ro", "nosuid", "noatime", "allow_other", "max_read=65536", "fsname=a,b", "dev", "atime"} {
		if known, err := o.Set(s); !known || err != nil {
			t.Errorf("%s: %v, %v", s, known, err)
		}
	}
	want := MountOptions{Source: "a,b", Flags: syscall.MS_RDONLY | syscall.MS_NOSUID, AllowOther: true, MaxRead: 65536}
	if o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	if known, err := o.Set("errors=continue"); known || err != nil {
		t.Errorf("errors=continue: %v, %v", known, err)
	}
	for _, s := range []string{"max_read=x", "max_read=1", "allow_other=1", "blksize=99999"} {
		if _, err := o.Set(s); err == nil {
			t.Errorf("%s: no error", s)
		}
	}
	if got := flagNames(o.Flags); !slices.Equal(got, []string{"ro", "nosuid"}) {
		t.Errorf("names %v", got)
	}
	if got := escapeOption(`a,b\c`); got != `a\,b\\c` {
		t.Errorf("escaped %s", got)
	}
}
