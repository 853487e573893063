//go:build linux

package testfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// A Recording is an image in memory, with its external journal if it has one,
// whose writes and syncs are logged.
type Recording struct {
	// Dev is the file system, with the external journal behind it. They are
	// disks of their own: see blockdev.Record.Part.
	Dev  *blockdev.Record
	size int64 // of the file system
	img  *Image
}

// Record starts a recording from the image as it stands. The image itself does
// not change any more.
func Record(t testing.TB, img *Image) *Recording {
	t.Helper()
	var parts []blockdev.Device
	var sizes []int64
	total := int64(0)
	for _, path := range []string{img.Path, img.Journal} {
		if path == "" {
			continue
		}
		f, err := blockdev.Open(path, blockdev.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		parts, sizes = append(parts, f), append(sizes, f.Size())
		total += f.Size()
	}
	mem := blockdev.NewMem(total)
	off := int64(0)
	for i, f := range parts {
		w, err := blockdev.Window(mem, off, sizes[i])
		if err == nil {
			err = blockdev.Copy(w, f)
		}
		if err != nil {
			t.Fatal(err)
		}
		off += sizes[i]
	}
	return &Recording{Dev: blockdev.NewRecord(mem), size: sizes[0], img: img}
}

// parts returns the file system, and the journal or nil, of a device that is
// like the recorded one.
func (r *Recording) parts(dev blockdev.Device, part func(off, n int64) (blockdev.Device, error)) (fs, journal blockdev.Device, err error) {
	if r.img.Journal == "" {
		return dev, nil, nil
	}
	if fs, err = part(0, r.size); err == nil {
		journal, err = part(r.size, dev.Size()-r.size)
	}
	return fs, journal, err
}

// Serve shows the recorded devices as files, for other programs to open, until
// the test ends.
func (r *Recording) Serve(t testing.TB) *Image {
	t.Helper()
	NeedRoot(t)
	dir := filepath.Join(Scratch(t), "rec")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fs, journal, err := r.parts(r.Dev, r.Dev.Part)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := recfs.Serve(dir, fs, journal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	img := &Image{Path: srv.Path, Journal: srv.Journal, Spec: r.img.Spec}
	img.ExpectDirty("a recording")
	return img
}

// Laps returns how often what was written to the journal would fill it; 0
// without one.
func (r *Recording) Laps(t testing.TB) float64 {
	t.Helper()
	log := r.Dev.Log()
	if r.img.Journal != "" {
		n := r.Dev.Size() - r.size
		return float64(log.Written(r.size, n)) / float64(n)
	}
	if s := superOf(r.Dev); !s.HasCompat(ondisk.CompatHasJournal) {
		return 0
	}
	const journal = "<8>"
	var written, size int64
	for f := range strings.FieldsSeq(Run(t, "debugfs", "-c", "-R", "blocks "+journal, r.img.Path)) {
		blk, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			continue // the banner of debugfs
		}
		bs := int64(1024) << superOf(r.Dev).LogBlockSize.Get()
		written += log.Written(blk*bs, bs)
		size += bs
	}
	return float64(written) / float64(max(size, 1))
}

// Mark logs a promise; see blockdev.Record.Mark.
func (r *Recording) Mark(v any) { r.Dev.Mark(v) }

// A Recovery brings an image that a crash left back to a clean state.
type Recovery struct {
	Name string
	Run  func(img *Image) error
}

// A Sweep says which crash states are tried, and how.
type Sweep struct {
	States int    // at most
	Seed   uint64 // of their choice
	Torn   bool   // lose sectors one by one
	// Repair is for file systems without a journal, of which a crash leaves what
	// has to be repaired: what was promised may have got another name by it. A
	// state that says that it is clean must be so.
	Repair bool
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
				n, err := r.tryState(st, s.Repair, rec, dir, fsck)
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

// superOf returns the superblock; zeros if it cannot be read.
func superOf(dev blockdev.Device) *ondisk.Super {
	b := make([]byte, ondisk.SuperSize)
	if _, err := dev.ReadAt(b, ondisk.SuperOffset); err != nil {
		clear(b)
	}
	return endian.View[ondisk.Super](b)
}

// errTornSuper is of a state whose superblock lacks one of its sectors. No ext4
// gets over that without a backup; disks with sectors of 4 KiB do not do it.
var errTornSuper = errors.New("the superblock is torn")

func tornSuper(dev blockdev.Device) bool {
	sb := superOf(dev)
	return sb.HasROCompat(ondisk.ROCompatMetadataCsum) && sb.Checksum.Get() != ondisk.SuperCsum(sb)
}

func (r *Recording) tryState(st *blockdev.State, repair bool, rec Recovery, dir, fsck string) (promises int, err error) {
	fs, journal, err := r.parts(st.Dev, func(off, n int64) (blockdev.Device, error) { return blockdev.Window(st.Dev, off, n) })
	if err != nil {
		return 0, err
	}
	if tornSuper(fs) {
		return 0, errTornSuper
	}
	img, mnt := &Image{Path: filepath.Join(dir, "image"), Spec: r.img.Spec}, filepath.Join(dir, "mnt")
	defer os.Remove(img.Path)
	if err := writeFile(img.Path, fs); err != nil {
		return 0, err
	}
	if journal != nil {
		img.Journal = filepath.Join(dir, "journal")
		defer os.Remove(img.Journal)
		if err := writeFile(img.Journal, journal); err != nil {
			return 0, err
		}
	}
	if repair && superOf(fs).State.Get()&ondisk.StateValid != 0 {
		if err := e2fsck(fsck, img.Path, img.Journal); err != nil {
			return 0, fmt.Errorf("it says that it is clean: %w", err)
		}
	}
	if err := rec.Run(img); err != nil {
		return 0, err
	}
	if err := e2fsck(fsck, img.Path, img.Journal); err != nil {
		return 0, err
	}
	if err := kernelMount(img.Path, "", mnt, "ro,noload"); err != nil {
		return 0, err
	}
	tree, err := SnapshotFunc(mnt, foreignData())
	if uerr := unmount(mnt); err == nil {
		err = uerr
	}
	if err != nil {
		return 0, err
	}
	return CheckPromises(tree, st.Marks, repair)
}

// writeFile makes a file of what dev holds.
func writeFile(path string, dev blockdev.Device) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = f.Truncate(dev.Size())
	if err == nil {
		err = blockdev.Copy(f, dev)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// KernelRecovery mounts and unmounts the image by the kernel.
func KernelRecovery(t testing.TB) Recovery {
	t.Helper()
	NeedRoot(t)
	return Recovery{"the kernel", func(img *Image) error {
		mnt, err := os.MkdirTemp(filepath.Dir(img.Path), "recover-")
		if err != nil {
			return err
		}
		defer os.Remove(mnt)
		if err := kernelMount(img.Path, img.Journal, mnt, ""); err != nil {
			return err
		}
		return unmount(mnt)
	}}
}

var totals = regexp.MustCompile(`Free (blocks|inodes) count wrong \(\d+, counted=\d+\)\.\nFix\? yes\n` +
	`|Feature orphan_present is set but orphan file is clean\.\nClear\? yes\n` +
	`|Orphan file \(inode \d+\) block \d+ is not clean\.\nClear\? yes\n` +
	`|Superblock hint for external superblock should be 0x[0-9a-f]+\.  Fix\? yes\n` +
	`|Inode \d+ extent tree \(at level \d+\) could be (shorter|narrower)\.  Optimize\? yes\n`)

// E2fsckRecovery has C e2fsck replay the journal. That it would repair more than
// a crash may leave is an error.
func E2fsckRecovery(t testing.TB) Recovery {
	t.Helper()
	tool := Tool(t, "e2fsck")
	return Recovery{"e2fsck", func(img *Image) error {
		out, _ := repairOutput(tool, img)
		// The totals of the superblock are not journaled: they are what the
		// groups add up to, and anyone who recovers counts again. The feature
		// orphan_present is set as long as a mount that writes lasts, and e2fsck
		// 1.47 counts the orphans that it has just cleared as a fault of the
		// orphan file. All three follow a crash of the kernel's ext4 too. The
		// number of the device that the journal is on may be any, and an extent
		// tree larger than it has to be.
		rest := totals.ReplaceAllString(out, "")
		if strings.Contains(rest, "? yes") || strings.Contains(rest, "ABORTED") {
			return fmt.Errorf("e2fsck -fy repairs:\n%s", out)
		}
		return nil
	}}
}

// E2fsckRepair has C e2fsck repair what a crash left of a file system without a
// journal. That it cannot, or that a block has two owners, is an error: blocks
// are not given away before it is durable that they are free.
func E2fsckRepair(t testing.TB) Recovery {
	t.Helper()
	tool := Tool(t, "e2fsck")
	return Recovery{"e2fsck", func(img *Image) error {
		out, err := repairOutput(tool, img)
		var exit *exec.ExitError
		const corrected = 1
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != corrected) {
			return fmt.Errorf("e2fsck -fy: %w\n%s", err, out)
		}
		if strings.Contains(strings.ToLower(out), "multiply-claimed") {
			return fmt.Errorf("blocks have two owners:\n%s", out)
		}
		return nil
	}}
}

// repairOutput runs e2fsck -fy and returns what it printed.
func repairOutput(tool string, img *Image) (string, error) {
	args := []string{"-fy"}
	if img.Journal != "" {
		args = append(args, "-j", img.Journal)
	}
	return outputOf(tool, append(args, img.Path)...)
}

// MountStates is how many states of mounts are swept by default.
const MountStates = 1200

// CrashStates returns how many states a test sweeps: n, or more in proportion
// where the environment asks for more of MountStates by E2KIT_CRASH_STATES, as
// "make crash" does.
func CrashStates(n int) int {
	if v, err := strconv.Atoi(os.Getenv("E2KIT_CRASH_STATES")); err == nil && v > 0 {
		return (n*v + MountStates - 1) / MountStates
	}
	return n
}
