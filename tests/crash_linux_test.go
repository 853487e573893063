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
	bin := server(t)
	return testfs.Recovery{Name: "us", Run: func(image string) error {
		mnt, err := os.MkdirTemp(filepath.Dir(image), "ours-")
		if err != nil {
			return err
		}
		defer os.Remove(mnt)
		m, err := testfs.StartFuse(mnt, exec.Command(bin, "-f", image, mnt))
		if err != nil {
			return err
		}
		return m.Unmount()
	}}
}

// TestCrash records what our mount writes under a load with fsyncs, and tries
// at least 1,000 of the states that a crash could leave, over the forms of
// journal and mapping; 10,000 by make crash.
func TestCrash(t *testing.T) {
	server(t)
	const mb = 1 << 20
	runs := []struct {
		opts string
		torn bool
		spec testfs.Spec
	}{
		{"", false, testfs.Spec{Name: "ordered", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=2"}},
		{"", true, testfs.Spec{Name: "ordered-torn", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=2"}},
		{"data=journal", false, testfs.Spec{Name: "journal", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=4"}},
		{"", false, testfs.Spec{Name: "4k-all", Size: 24 * mb, InodeSize: 512, Inodes: 1024, Journal: "size=4",
			Features: "inline_data,ea_inode,orphan_file,metadata_csum_seed"}},
		{"", false, testfs.Spec{Name: "ext3", Type: "ext3", BlockSize: 1024, Size: 16 * mb, Inodes: 1024, Journal: "size=1"}},
		{"", false, testfs.Spec{Name: "nocsum-bigalloc", BlockSize: 1024, Cluster: 4096, Size: 16 * mb, Inodes: 1024, Journal: "size=2",
			Features: "bigalloc,^metadata_csum"}},
	}
	each := (testfs.CrashStates(1200) + len(runs) - 1) / len(runs)
	for i, c := range runs {
		t.Run(c.spec.Name, func(t *testing.T) {
			ways := []testfs.Recovery{ourRecovery(t), testfs.E2fsckRecovery(t)}
			if testfs.Supported(t, c.spec) == nil {
				ways = append(ways, testfs.KernelRecovery(t))
			}
			// A load has so many syncs; the longer sweep is more loads.
			states, promises := 0, 0
			for seed := uint64(i); states < each && !t.Failed(); seed += 100 {
				rec := record(t, c.spec, c.opts, seed)
				res := rec.Sweep(t, testfs.Sweep{States: min(each-states, 1000), Seed: seed, Torn: c.torn, Recover: ways, Fails: 3})
				states, promises = states+res.States, promises+res.Promises
				for _, f := range res.Failed {
					t.Error(f)
				}
				if res.States == 0 {
					t.Fatal("a load gave no states")
				}
			}
			t.Logf("%d states, %d promises kept", states, promises)
		})
	}
}

// record runs a load on our mount of a new image and returns what was written.
func record(t *testing.T, s testfs.Spec, opts string, seed uint64) *testfs.Recording {
	t.Helper()
	img := testfs.Mke2fs(t, s)
	testfs.Poison(t, img)
	rec := testfs.Record(t, img)
	m := mount(t, rec.Serve(t), opts)
	if err := testfs.CrashLoad(m.Dir, seed, 150, rec.Mark); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	return rec
}
