package main

import (
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// fillSome makes less than fill: an index, trees of extents or of indirect
// blocks, attributes, links of both kinds.
const fillSome = `cd "$1"
mkdir -p a/b big
for i in $(seq 1 260); do : >big/file-with-a-rather-long-name-so-that-there-are-blocks-$i; done
for i in $(seq 1 40); do printf fragment | dd of=frag bs=1 seek=$((i*131072)) conv=notrunc status=none; done
echo x >a/x; ln a/x a/hard; ln -s ../x a/b/up; ln -s "$(printf '%0100d' 5)" longlink; head -c 300000 /dev/urandom >data
setfattr -n user.small -v abc a/x 2>/dev/null; setfattr -n user.big -v "$(printf '%0300d' 5)" a/x 2>/dev/null; chown 70000:80000 a/x; mknod b b 8 300
sync -f .; rm big/*-1?`

// matrixRequests are compared over all kinds of file systems.
var matrixRequests = []string{
	"feature", "ls -l /", "ls -dl /a", "ls -p /a", "ls -c /big", "ls -d /big", "htree /big", "stat /", "stat big", "stat a/x", "stat frag", "stat data", "stat longlink",
	"stat b", "stat <8>", "stat <7>", "ex frag", "ex big", "blocks frag", "bmap frag 64", "testb 200 3", "ffi", "imap data", "ncheck 12 13 14", "icheck 200 300 700",
	"ea_list a/x", "idump a/x", "filefrag -v data", "dirsearch big file-with-a-rather-long-name-so-that-there-are-blocks-200", "bd 1", "pwd",
}

// TestMatrix compares with C debugfs on every kind of file system there is.
func TestMatrix(t *testing.T) {
	testfs.NeedRoot(t)
	for _, s := range testfs.Matrix() {
		t.Run(s.Name, func(t *testing.T) {
			if s.External {
				t.Skip("C debugfs shows it like any other; its journal is elsewhere")
			}
			if err := testfs.Supported(t, s); err != nil {
				t.Skip(err)
			}
			img := testfs.Mke2fs(t, s)
			if s.KernelBug != "" {
				img.ExpectDirty(s.KernelBug)
			}
			m := testfs.KernelMount(t, img, "")
			testfs.Run(t, "sh", "-c", fillSome, "sh", m.Dir)
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
			for _, req := range matrixRequests {
				want := cDebugfs(t, "-R", req, img.Path)
				if _, got, errs := debugfs("-R", req, img.Path); got != want {
					if why := matrixDiffers(s, req); why != "" {
						t.Logf("%s differs: %s", req, why)
						continue
					}
					t.Errorf("%s: %s%s", req, firstDifference(got, want), errs)
				}
			}
		})
	}
}

// matrixDiffers says why outputs are not equal, "" if they should be.
func matrixDiffers(s testfs.Spec, req string) string {
	if strings.Contains(s.Features, "inline_data") && strings.HasPrefix(req, "dirsearch") {
		return "C debugfs does not search inline directories"
	}
	return ""
}
