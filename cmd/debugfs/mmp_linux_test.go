package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
)

// editMMP carries out commands on the image, open for writing. sleep is called
// when it waits to hear from other hosts.
func editMMP(img string, sleep func(), commands ...string) (waits int, out string, err error) {
	var o bytes.Buffer
	s := newSession(strings.NewReader(""), &o, &o)
	s.sleep = func(d time.Duration) {
		waits++
		sleep()
	}
	if err := s.open(img, openOpts{write: true}); err != nil {
		return waits, "", err
	}
	for _, c := range commands {
		s.execute(c)
	}
	return waits, o.String(), s.close(false)
}

// TestMMP sets all fields of the block, beside C debugfs showing them, and has
// the block keep others off.
func TestMMP(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "mmp", Size: 16 << 20, BlockSize: 1024, Features: "mmp"})
	nothing := func() {}
	show := func() string {
		t.Helper()
		_, out, errs := debugfs("-R", "dump_mmp", img.Path)
		if want := cDebugfs(t, "-R", "dump_mmp", img.Path); out != want {
			t.Errorf("%s%s", firstDifference(out, want), errs)
		}
		return out
	}
	has := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(out, w+"\n") {
				t.Errorf("no %q in\n%s", w, out)
			}
		}
	}
	waits, out, err := editMMP(img.Path, nothing, "dump_mmp", "smmp nodename there", "smmp bdevname /dev/it", "smmp check_interval 7", "mkdir d")
	if err != nil || waits != 0 {
		t.Fatalf("waited %d times, %v", waits, err)
	}
	has(out, "sequence: e24d4d50", "device_name: "+img.Path[:min(32, len(img.Path))])
	has(show(), "sequence: ff4d4d50", "node_name: there", "device_name: /dev/it", "check_interval: 7")

	if _, out, err := editMMP(img.Path, nothing, "smmp seq 77", "smmp time 1000000000"); err != nil || out != "" {
		t.Fatal(out, err)
	}
	has(show(), "sequence: 0000004d", "time: 1000000000 -- "+e2p.Ctime(1000000000, time.Local))

	// Another host says that it is there.
	alive := func() { editMMPBlock(t, img.Path, 78) }
	if _, _, err := editMMP(img.Path, alive, "mkdir no"); err == nil || !strings.Contains(err.Error(), "in use by") {
		t.Errorf("in use: %v", err)
	}
	// It does not: it was cut short.
	if waits, _, err := editMMP(img.Path, nothing, "mkdir yes"); err != nil || waits != 1 {
		t.Errorf("waited %d times, %v", waits, err)
	}
	has(show(), "sequence: ff4d4d50")

	editMMPBlock(t, img.Path, 0xe24d4d50)
	if _, _, err := editMMP(img.Path, nothing); err == nil || !strings.Contains(err.Error(), "clear_mmp") {
		t.Errorf("being checked: %v", err)
	}
	if status, out, errs := debugfs("-R", "ls /", img.Path); status != 0 || !strings.Contains(out, "yes") || strings.Contains(out, "no") {
		t.Errorf("reading: %d: %s%s", status, out, errs)
	}
	editMMPBlock(t, img.Path, 0xff4d4d50)

	// A block that is damaged protects from nothing, and can be mended.
	if _, out, err := editMMP(img.Path, nothing, "smmp magic 5"); err != nil {
		t.Fatal(out, err)
	}
	if _, out, err := editMMP(img.Path, nothing, "smmp clear"); err != nil || !strings.Contains(out, "nothing protects") {
		t.Errorf("damaged: %q, %v", out, err)
	}
	has(show(), "sequence: ff4d4d50", "magic: 0x4d4d50", "node_name: ")
}

// editMMPBlock gives the block a sequence number, as another host would.
func editMMPBlock(t *testing.T, img string, seq uint32) {
	t.Helper()
	s := newSession(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	if err := s.open(img, openOpts{}); err != nil {
		t.Fatal(err)
	}
	defer s.close(false)
	blk, _, m, err := s.mmpBlock(s.raw, 0)
	if err != nil {
		t.Fatal(err)
	}
	m.Seq.Set(seq)
	m.Seal(s.raw.CsumSeed())
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(endian.Bytes(m), int64(blk)*int64(s.raw.BlockSize())); err != nil {
		t.Fatal(err)
	}
}
