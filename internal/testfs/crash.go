//go:build linux

package testfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs/recfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// A Recording is an image in memory whose writes and syncs are logged.
type Recording struct {
	Dev *blockdev.Record
	img *Image
}

// Record starts a recording from the image as it stands. The image itself does
// not change any more.
func Record(t testing.TB, img *Image) *Recording {
	t.Helper()
	f, err := blockdev.Open(img.Path, blockdev.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := blockdev.MemOf(f)
	if err != nil {
		t.Fatal(err)
	}
	return &Recording{Dev: blockdev.NewRecord(mem), img: img}
}

// Serve shows the recorded device as a file, for other programs to open, until
// the test ends.
func (r *Recording) Serve(t testing.TB) *Image {
	t.Helper()
	NeedRoot(t)
	dir := filepath.Join(Scratch(t), "rec")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	srv, err := recfs.Serve(dir, r.Dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	img := &Image{Path: srv.Path, Spec: r.img.Spec}
	img.ExpectDirty("a recording")
	return img
}

// Mark logs a promise; see blockdev.Record.Mark.
func (r *Recording) Mark(v any) { r.Dev.Mark(v) }

// A Recovery brings an image that a crash left back to a clean state.
type Recovery struct {
	Name string
	Run  func(image string) error
}

// A Sweep says which crash states are tried, and how.
type Sweep struct {
	States int    // at most
	Seed   uint64 // of their choice
	Torn   bool   // lose sectors one by one
	// Recover has the ways to recover; each state takes the next of them.
	Recover []Recovery
	// Workers is how many states are tried at a time; 0 is 2.
	Workers int
	// Fails is how many failures are enough; 0 is 10.
	Fails int
}

// A SweepResult counts the states that were tried.
type SweepResult struct {
	States   int
	Promises int      // that were checked, over all states
	Failed   []string // a message for each state that failed
}

// Sweep recovers crash states of the recording. Each must become clean by the
// recovery alone, as C e2fsck -fn judges it, mount by the kernel, show nothing
// of what is not a file's own (see CrashLoad), and hold all that was promised.
func (r *Recording) Sweep(t testing.TB, s Sweep) SweepResult {
	t.Helper()
	NeedRoot(t)
	fsck := Tool(t, "e2fsck")
	if s.Workers == 0 {
		s.Workers = 2
	}
	if s.Fails == 0 {
		s.Fails = 10
	}
	log := r.Dev.Log()
	states := make(chan *blockdev.State)
	stop := make(chan struct{})
	var once sync.Once
	var mu sync.Mutex
	var res SweepResult
	var wg sync.WaitGroup
	for range s.Workers {
		dir := Scratch(t)
		if err := os.Mkdir(filepath.Join(dir, "mnt"), 0o755); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for st := range states {
				rec := s.Recover[st.Seq%len(s.Recover)]
				n, err := tryState(st, rec, dir, fsck)
				if errors.Is(err, errTornSuper) && s.Torn {
					continue
				}
				mu.Lock()
				res.States++
				res.Promises += n
				if err != nil {
					res.Failed = append(res.Failed, fmt.Sprintf("%v, recovered by %s: %v", st, rec.Name, err))
					if len(res.Failed) >= s.Fails {
						once.Do(func() { close(stop) })
					}
				}
				mu.Unlock()
			}
		})
	}
	perSync := max(4, 4*s.States/max(1, log.Syncs()))
feed:
	for st := range log.States(blockdev.StateOptions{Seed: s.Seed, Limit: s.States, PerSync: perSync, Torn: s.Torn}) {
		select {
		case states <- st:
		case <-stop:
			break feed
		}
	}
	close(states)
	wg.Wait()
	return res
}

// errTornSuper is of a state whose superblock lacks one of its sectors. No ext4
// gets over that without a backup; disks with sectors of 4 KiB do not do it.
var errTornSuper = errors.New("the superblock is torn")

func tornSuper(dev blockdev.Device) bool {
	b := make([]byte, ondisk.SuperSize)
	if _, err := dev.ReadAt(b, ondisk.SuperOffset); err != nil {
		return false
	}
	sb := endian.View[ondisk.Super](b)
	return sb.HasROCompat(ondisk.ROCompatMetadataCsum) && sb.Checksum.Get() != ondisk.SuperCsum(sb)
}

func tryState(st *blockdev.State, rec Recovery, dir, fsck string) (promises int, err error) {
	if tornSuper(st.Dev) {
		return 0, errTornSuper
	}
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	f, err := os.Create(image)
	if err != nil {
		return 0, err
	}
	defer os.Remove(image)
	err = f.Truncate(st.Dev.Size())
	if err == nil {
		err = blockdev.Copy(f, st.Dev)
	}
	f.Close()
	if err != nil {
		return 0, err
	}
	if err := rec.Run(image); err != nil {
		return 0, err
	}
	if err := e2fsck(fsck, image, ""); err != nil {
		return 0, err
	}
	if err := kernelMount(image, "", mnt, "ro,noload"); err != nil {
		return 0, err
	}
	tree, err := SnapshotFunc(mnt, foreignData())
	if uerr := unmount(mnt); err == nil {
		err = uerr
	}
	if err != nil {
		return 0, err
	}
	return CheckPromises(tree, st.Marks)
}

// KernelRecovery mounts and unmounts the image by the kernel.
func KernelRecovery(t testing.TB) Recovery {
	t.Helper()
	NeedRoot(t)
	return Recovery{"the kernel", func(image string) error {
		mnt, err := os.MkdirTemp(filepath.Dir(image), "recover-")
		if err != nil {
			return err
		}
		defer os.Remove(mnt)
		if err := kernelMount(image, "", mnt, ""); err != nil {
			return err
		}
		return unmount(mnt)
	}}
}

var totals = regexp.MustCompile(`Free (blocks|inodes) count wrong \(\d+, counted=\d+\)\.\nFix\? yes\n` +
	`|Feature orphan_present is set but orphan file is clean\.\nClear\? yes\n` +
	`|Orphan file \(inode \d+\) block \d+ is not clean\.\nClear\? yes\n` +
	`|Inode \d+ extent tree \(at level \d+\) could be (shorter|narrower)\.  Optimize\? yes\n`)

// E2fsckRecovery has C e2fsck replay the journal. That it would repair more than
// a crash may leave is an error.
func E2fsckRecovery(t testing.TB) Recovery {
	t.Helper()
	tool := Tool(t, "e2fsck")
	return Recovery{"e2fsck", func(image string) error {
		out, _ := outputOf(tool, "-fy", image)
		// The totals of the superblock are not journaled: they are what the
		// groups add up to, and anyone who recovers counts again. The feature
		// orphan_present is set as long as a mount that writes lasts, and e2fsck
		// 1.47 counts the orphans that it has just cleared as a fault of the
		// orphan file. All three follow a crash of the kernel's ext4 too, as do
		// extent trees that could be smaller.
		rest := totals.ReplaceAllString(out, "")
		if strings.Contains(rest, "? yes") || strings.Contains(rest, "ABORTED") {
			return fmt.Errorf("e2fsck -fy repairs:\n%s", out)
		}
		return nil
	}}
}

// CrashStates returns how many states a test sweeps: n, or what the environment
// asks for by E2KIT_CRASH_STATES, as "make crash" does.
func CrashStates(n int) int {
	if v, err := strconv.Atoi(os.Getenv("E2KIT_CRASH_STATES")); err == nil && v > 0 {
		return v
	}
	return n
}
