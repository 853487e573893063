package fuse2fs_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/e2kit/e2kit/internal/iomappeer"
	"github.com/e2kit/e2kit/internal/testfs"
)

// peerSpecs are the kinds of images that the peer writes to.
var peerSpecs = []testfs.Spec{
	{Name: "ext4", Size: 24 << 20},
	{Name: "ext4-1k", BlockSize: 1024, Size: 16 << 20},
	{Name: "ext2", Type: "ext2", BlockSize: 1024, Size: 8 << 20},
	{Name: "ext3-4k", Type: "ext3", Size: 24 << 20},
	{Name: "bigalloc", Features: "bigalloc", Cluster: 16384, Size: 32 << 20, Inodes: 512},
	{Name: "bigalloc-1k", Features: "bigalloc", BlockSize: 1024, Cluster: 8192, Size: 16 << 20, Inodes: 512},
	{Name: "inline", Features: "inline_data,ea_inode", InodeSize: 512, Size: 24 << 20},
	{Name: "nojournal", Features: "^has_journal", Size: 8 << 20},
}

var profiles = []iomappeer.Profile{iomappeer.May26, iomappeer.V7}

// A peerVariant is a way to run random operations.
type peerVariant struct {
	name   string
	set    func(o *peerOptions)
	fuzz   iomappeer.FuzzOptions
	faults *iomappeer.Faults
}

// configBits is what a kernel offers in CONFIG but for the size of the cache.
const configBits = 0x3f

var peerVariants = []peerVariant{
	{name: "alone", set: func(o *peerOptions) { o.workers = 1 }},
	{name: "socket", set: func(o *peerOptions) { o.socket = true }},
	{name: "apart", fuzz: iomappeer.FuzzOptions{Workers: 4}},
	{name: "shared", fuzz: iomappeer.FuzzOptions{Workers: 4, Shared: true}},
	{name: "socket shared", set: func(o *peerOptions) { o.socket = true }, fuzz: iomappeer.FuzzOptions{Workers: 4, Shared: true}},
	{name: "without END", set: func(o *peerOptions) { o.NoEnd = true }},
	{name: "small cache", set: func(o *peerOptions) { o.ConfigOffer, o.CacheMaxbytes = configBits, 256 }},
	{name: "small files", fuzz: iomappeer.FuzzOptions{MaxSize: 9000, Files: 8}},
	{name: "benign faults", faults: benign},
	{name: "benign faults shared", faults: benign, fuzz: iomappeer.FuzzOptions{Workers: 4, Shared: true}},
	{name: "cache misses", faults: &iomappeer.Faults{CacheMisses: 1}},
	{name: "upsert fails", faults: &iomappeer.Faults{UpsertFails: 1}},
	{name: "bad device", fuzz: iomappeer.FuzzOptions{Faults: true},
		faults: &iomappeer.Faults{WriteFails: 0.05, ShortWrite: 0.05, ReadFails: 0.02, NegativeEnd: 0.5}},
	{name: "bad device shared", fuzz: iomappeer.FuzzOptions{Faults: true, Workers: 4, Shared: true},
		faults: &iomappeer.Faults{WriteFails: 0.05, ShortWrite: 0.05, ReadFails: 0.02, NegativeEnd: 0.5, UpsertFails: 0.1}},
	{name: "interrupts", fuzz: iomappeer.FuzzOptions{Faults: true}, faults: &iomappeer.Faults{Interrupt: 0.05, PerFolio: 0.2}},
}

// benign is what may go wrong, or be done otherwise, with no operation to fail.
var benign = &iomappeer.Faults{UpsertFails: 0.2, CacheMisses: 0.2, DropEnd: 0.1, ShortCopy: 0.2, Stale: 0.2, DupIOEnd: 0.1,
	WantEnd: 0.1, MergeIOEnd: 0.2, EndWriteback: true, PerFolio: 0.3, ConfigBits: 1 << 20}

// copyFaults copies the settings, of which each run has its own.
func copyFaults(f *iomappeer.Faults) *iomappeer.Faults {
	if f == nil {
		return &iomappeer.Faults{}
	}
	return &iomappeer.Faults{UpsertFails: f.UpsertFails, CacheMisses: f.CacheMisses, DropEnd: f.DropEnd, ShortCopy: f.ShortCopy,
		NegativeEnd: f.NegativeEnd, Stale: f.Stale, Interrupt: f.Interrupt, WriteFails: f.WriteFails, ShortWrite: f.ShortWrite,
		ReadFails: f.ReadFails, DupIOEnd: f.DupIOEnd, WantEnd: f.WantEnd, MergeIOEnd: f.MergeIOEnd,
		EndWriteback: f.EndWriteback, PerFolio: f.PerFolio, ConfigBits: f.ConfigBits}
}

// peerOps is how many random operations a profile gets in all, by default and at
// least: "make peer" asks for more.
func peerOps() int {
	n := 36000
	if raceEnabled || testing.Short() {
		n = 6000
	}
	if v, err := strconv.Atoi(os.Getenv("E2KIT_PEER_OPS")); err == nil && v > 0 {
		n = v
	}
	return n
}

// Random operations of the peer find nothing to object to, in any profile, on any
// kind of image, with whatever goes wrong on the way; and no check is idle.
func TestPeerFuzz(t *testing.T) {
	ops := max(peerOps()/(len(peerSpecs)*len(peerVariants)), 1)
	seed := uint64(1)
	if v, err := strconv.ParseUint(os.Getenv("E2KIT_PEER_SEED"), 10, 64); err == nil {
		seed = v
	}
	done := map[iomappeer.Profile]int{}
	evals := map[iomappeer.Profile]map[string]int64{}
	for _, spec := range peerSpecs {
		t.Run(spec.Name, func(t *testing.T) {
			img := newPeerImage(t, spec)
			for _, profile := range profiles {
				for i := range peerVariants {
					v := &peerVariants[i]
					t.Run(fmt.Sprintf("%v/%s", profile, v.name), func(t *testing.T) {
						n, e := peerFuzz(t, img, profile, seed+uint64(i), ops, v)
						done[profile] += n
						if evals[profile] == nil {
							evals[profile] = map[string]int64{}
						}
						for check, n := range e {
							evals[profile][check] += n
						}
					})
				}
			}
		})
	}
	for _, profile := range profiles {
		t.Logf("%v: %d operations; evaluated %v", profile, done[profile], evals[profile])
		for _, check := range slices.Sorted(maps.Keys(iomappeer.Checks)) {
			if evals[profile] != nil && evals[profile][check] == 0 && len(done) == len(profiles) && !partial() {
				t.Errorf("%v: %s was never evaluated: %s", profile, check, iomappeer.Checks[check])
			}
		}
	}
}

// partial tells whether only some of the runs were asked for.
func partial() bool {
	for _, a := range os.Args {
		if len(a) > 10 && a[:10] == "-test.run=" && slices.Contains([]byte(a), '/') {
			return true
		}
	}
	return false
}

// peerFuzz does n operations, and returns how many were done and what was evaluated.
func peerFuzz(t *testing.T, img *peerImage, profile iomappeer.Profile, seed uint64, n int, v *peerVariant) (int, map[string]int64) {
	o := peerOptions{Config: iomappeer.Config{Profile: profile, Seed: seed, Faults: copyFaults(v.faults)}}
	if v.set != nil {
		v.set(&o)
	}
	p := startPeer(t, img, o)
	res, err := iomappeer.Fuzz(p.Kernel, seed, n, v.fuzz)
	o.Faults.Off.Store(true)
	if err != nil {
		t.Fatalf("%v\n%v", err, res)
	}
	p.unmount()
	did := 0
	for _, c := range res.Ops {
		did += c
	}
	return did, p.Evals()
}
