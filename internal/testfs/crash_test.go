//go:build linux

package testfs

import (
	"testing"
)

// crashSpec is small, so that a state is recovered in some milliseconds.
var crashSpec = Spec{Name: "crash", Size: 16 << 20, BlockSize: 1024, Inodes: 1024, Journal: "size=2"}

// recordLoad runs CrashLoad on what mount mounts and returns the recording.
func recordLoad(t *testing.T, ops int, mount func(*Image) *Mount) *Recording {
	t.Helper()
	img := Mke2fs(t, crashSpec)
	Poison(t, img)
	r := Record(t, img)
	served := r.Serve(t)
	m := mount(served)
	if err := CrashLoad(m.Dir, 3, ops, r.Mark); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCrashKernel sweeps the kernel's ext4, which passes: the harness asks for
// nothing that cannot be had.
func TestCrashKernel(t *testing.T) {
	NeedRoot(t)
	r := recordLoad(t, 120, func(img *Image) *Mount { return KernelMount(t, img, "") })
	for _, torn := range []bool{false, true} {
		res := r.Sweep(t, Sweep{States: 150, Torn: torn, Recover: []Recovery{KernelRecovery(t), E2fsckRecovery(t)}})
		t.Logf("torn %v: %d states, %d promises", torn, res.States, res.Promises)
		for _, f := range res.Failed {
			t.Error(f)
		}
		if res.States < 100 || res.Promises < 500 {
			t.Errorf("%d states and %d promises show too little", res.States, res.Promises)
		}
	}
}

// TestCrashCFuse2fs sweeps C fuse2fs, which writes no journal and so fails: a
// harness that it passes is too weak.
func TestCrashCFuse2fs(t *testing.T) {
	NeedRoot(t)
	r := recordLoad(t, 60, func(img *Image) *Mount { return CFuseMount(t, img, "rw") })
	res := r.Sweep(t, Sweep{States: 60, Recover: []Recovery{KernelRecovery(t), E2fsckRecovery(t)}, Fails: 5})
	t.Logf("%d states, %d failed", res.States, len(res.Failed))
	if len(res.Failed) == 0 {
		t.Error("C fuse2fs passes")
	}
}

// TestCrashNoBarrier sweeps the kernel's ext4 told not to flush, which loses
// what it promised.
func TestCrashNoBarrier(t *testing.T) {
	NeedRoot(t)
	r := recordLoad(t, 60, func(img *Image) *Mount { return KernelMount(t, img, "barrier=0") })
	res := r.Sweep(t, Sweep{States: 100, Recover: []Recovery{KernelRecovery(t)}, Fails: 5})
	t.Logf("%d states, %d failed", res.States, len(res.Failed))
	if len(res.Failed) == 0 {
		t.Error("ext4 without barriers passes")
	}
}
