package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// ourRecovery mounts and unmounts an image by the server under test.
func ourRecovery(t *testing.T) testfs.Recovery {
	server(t)
	return testfs.Recovery{Name: "us", Run: func(img *testfs.Image) error {
		mnt, err := os.MkdirTemp(filepath.Dir(img.Path), "ours-")
		if err != nil {
			return err
		}
		defer os.Remove(mnt)
		argv := command(t, img, "")
		m, err := testfs.StartFuse(mnt, exec.Command(argv[0], append(argv[1:], mnt)...))
		if err != nil {
			return err
		}
		return m.Unmount()
	}}
}

const mb = 1 << 20

// crashRuns are the forms of journal and mapping that crash states are tried of.
var crashRuns = []struct {
	opts string
	torn bool
	ops  int // of each load
	// laps is how often a load goes round the log, at least.
	laps int
	spec testfs.Spec
}{
	{"", false, 150, 0, testfs.Spec{Name: "ordered", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=2"}},
	{"", true, 150, 0, testfs.Spec{Name: "ordered-torn", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=2"}},
	{"data=journal", false, 150, 0, testfs.Spec{Name: "journal", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=4"}},
	{"", false, 150, 0, testfs.Spec{Name: "4k-all", Size: 24 * mb, InodeSize: 512, Inodes: 1024, Journal: "size=4",
		Features: "inline_data,ea_inode,orphan_file,metadata_csum_seed"}},
	// Past the page cache, with what fills whole blocks written behind.
	{"direct", true, 150, 0, testfs.Spec{Name: "behind-torn", Size: 24 * mb, Inodes: 1024, Journal: "size=4"}},
	{"", false, 150, 0, testfs.Spec{Name: "ext3", Type: "ext3", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=1"}},
	{"", false, 150, 0, testfs.Spec{Name: "nocsum-bigalloc", BlockSize: 1024, Cluster: 4096, Size: 16 * mb, Inodes: 1024, Journal: "size=2",
		Features: "bigalloc,^metadata_csum"}},
	// Logs so small for what goes through them that the tail has to move all the
	// time, with what is not at home yet right behind it.
	{"", false, 500, 2, testfs.Spec{Name: "small", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=1"}},
	{"data=journal", true, 300, 2, testfs.Spec{Name: "small-journal", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=1"}},
	// A log on a disk of its own, which a flush of the other says nothing about.
	{"", false, 150, 0, testfs.Spec{Name: "external", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, External: true}},
	{"data=journal", false, 150, 0, testfs.Spec{Name: "external-journal", Size: 24 * mb, Inodes: 1024, External: true}},
}

// TestCrash records what our mount writes under a load with fsyncs, and tries
// at least 1,000 of the states that a crash could leave, over the forms of
// journal and mapping; 10,000 by make crash.
func TestCrash(t *testing.T) {
	server(t)
	for i, c := range crashRuns {
		t.Run(c.spec.Name, func(t *testing.T) {
			ways := []testfs.Recovery{ourRecovery(t)}
			// Of a commit block that was torn, over what the log held on its last
			// lap, the kernel and we take the half that counts; e2fsck 1.47.0 says
			// that the transaction is corrupt, of the kernel's too.
			if !c.torn || c.laps == 0 {
				ways = append(ways, testfs.E2fsckRecovery(t))
			}
			if testfs.Supported(t, c.spec) == nil {
				ways = append(ways, testfs.KernelRecovery(t))
			}
			sweep(t, c.spec, c.opts, c.ops, c.laps, uint64(i), testfs.Sweep{Torn: c.torn, Recover: ways})
		})
	}
}

// TestCrashNoJournal does it without a journal: e2fsck has to repair what a
// crash leaves, and finds all that was synced, no block of two files and no
// stale data, and the file system does not say that it is clean.
func TestCrashNoJournal(t *testing.T) {
	server(t)
	for i, s := range []testfs.Spec{
		{Name: "ext2", Type: "ext2", BlockSize: 1024, Size: 16 * mb, Inodes: 1024},
		{Name: "ext4", Size: 24 * mb, Inodes: 1024, Features: "^has_journal"},
	} {
		t.Run(s.Name, func(t *testing.T) {
			sweep(t, s, "", 150, 0, uint64(i), testfs.Sweep{Repair: true, Recover: []testfs.Recovery{testfs.E2fsckRepair(t)}})
		})
	}
}

// sweep records loads, each of so many operations, and tries states of them
// until each run has had its share. The longer sweep is more loads, since a load
// has so many syncs.
func sweep(t *testing.T, spec testfs.Spec, opts string, ops, laps int, seed uint64, s testfs.Sweep) {
	each := (testfs.CrashStates(testfs.MountStates) + len(crashRuns) - 1) / len(crashRuns)
	states, promises := 0, 0
	for s.Seed = seed; states < each && !t.Failed(); s.Seed += 100 {
		rec := record(t, spec, opts, ops, laps, s.Seed)
		s.States, s.Fails = min(each-states, 1000), 3
		res := rec.Sweep(t, s)
		states, promises = states+res.States, promises+res.Promises
		for _, f := range res.Failed {
			t.Error(f)
		}
		if res.States == 0 {
			t.Fatal("a load gave no states")
		}
	}
	if promises < states {
		t.Errorf("%d promises over %d states: too few to show anything", promises, states)
	}
	t.Logf("%d states, %d promises kept", states, promises)
}

// record runs a load on our mount of a new image and returns what was written.
func record(t *testing.T, s testfs.Spec, opts string, ops, laps int, seed uint64) *testfs.Recording {
	t.Helper()
	img := testfs.Mke2fs(t, s)
	testfs.Poison(t, img)
	rec := testfs.Record(t, img)
	m := mount(t, rec.Serve(t), opts)
	if err := testfs.CrashLoad(m.Dir, seed, ops, rec.Mark); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	if n := rec.Laps(t); n < float64(laps) {
		t.Fatalf("the load went round the log %.1f times only", n)
	}
	return rec
}
