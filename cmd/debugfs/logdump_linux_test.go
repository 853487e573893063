package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() { alsoSame = append(alsoSame, sameRequests) }

// sameRequests compares the listings of debugfs of an image.
func sameRequests(t *testing.T, path string) {
	sb := superOf(t, path)
	if sb.FeatureIncompat.Get()&ondisk.IncompatJournalDev != 0 {
		return
	}
	for _, r := range []string{"stats", "stats -h", "show_super_stats"} {
		sameRequest(t, path, r, nil)
	}
	if sb.JournalInum.Get() != 0 {
		for _, r := range logRequests {
			sameLog(t, path, r)
		}
	}
}

// sameRequest compares what a command of debugfs prints with C's.
func sameRequest(t *testing.T, path, request string, normal func(string) string) {
	t.Helper()
	// C does not open what has a bitmap with a bad checksum, as a dirty image
	// may have, unless it does without bitmaps.
	want, _ := testfs.Listing(t, "debugfs", "-c", "-R", request, path)
	got, msg, status := ours("debugfs", "-c", "-R", request, path)
	want = testfs.SameListing(t, want, 1)
	if normal != nil {
		want = normal(want)
	}
	if d := testfs.FirstDiff(want, got); d != "" || status != 0 {
		t.Errorf("debugfs -R %q %s: status %d: %s\n%s", request, path, status, msg, d)
	}
}

// logRequests are the forms of logdump that all journals are shown by.
var logRequests = []string{
	"logdump", "logdump -a", "logdump -S", "logdump -O", "logdump -Oa", "logdump -ac", "logdump -O -n 2", "logdump -b 1",
}

// Names in fast commits do not end in NUL: C prints what follows them too, up to
// the first one, which is the next tag's type.
var nameTail = regexp.MustCompile(`(name "[^"\n]*?)[\x01-\x0a]+"`)

func logNormal(s string) string { return nameTail.ReplaceAllString(s, `$1"`) }

// Where there are no fast commits C takes the last 256 blocks of the log for
// some.
var notFastCommits = regexp.MustCompile(`(?m)^(\n\*\*\* Fast Commit Area \*\*\*|tag [A-Z_]+.*)\n`)

// sameLog compares what a logdump prints with C's. C of 1.47.0 does not know
// where -O began.
func sameLog(t *testing.T, path, request string) {
	t.Helper()
	if testfs.OldListing(t) && strings.Contains(request, "-O") {
		request = strings.ReplaceAll(request, "-O", "-")
		if request = strings.TrimSuffix(request, " -"); strings.Contains(request, "- ") {
			return
		}
	}
	normal := logNormal
	if superOf(t, path).FeatureCompat.Get()&ondisk.CompatFastCommit == 0 {
		normal = func(s string) string { return notFastCommits.ReplaceAllString(s, "") }
	}
	sameRequest(t, path, request, normal)
}

// TestLogdumpDirty compares what logdump shows of journals in all formats, as
// the kernel left them.
func TestLogdumpDirty(t *testing.T) {
	for i, d := range testfs.DirtyImages() {
		if testing.Short() && i%6 != 0 {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			img := d.Make(t)
			sb := superOf(t, img.Path)
			sameDump(t, img.Path)
			if img.Journal != "" {
				for _, r := range []string{"logdump -f ", "logdump -a -f ", "logdump -S -f "} {
					sameLog(t, img.Path, r+img.Journal)
				}
				return
			}
			if sb.JournalInum.Get() == 0 {
				if _, msg, status := ours("debugfs", "-R", "logdump", img.Path); status != exitFailed || !strings.Contains(msg, "no journal") {
					t.Errorf("without a journal: status %d, %s", status, msg)
				}
				return
			}
			for _, r := range logRequests {
				sameLog(t, img.Path, r)
			}
			if sb.InodeSize.Get() == 128 { // C takes all inodes for that large
				for _, i := range []string{"<2>", "<12>", "<13>"} {
					sameRequest(t, img.Path, "logdump -i "+i, inodeNormal)
					sameRequest(t, img.Path, "logdump -c -i "+i, inodeNormal)
				}
			}
			bitmap, table := "", ""
			if out, _, _ := ours("debugfs", "-R", "stats", img.Path); true {
				bitmap = regexp.MustCompile(`block bitmap at (\d+)`).FindStringSubmatch(out)[1]
				table = regexp.MustCompile(`inode table at (\d+)`).FindStringSubmatch(out)[1]
			}
			for _, b := range []string{bitmap, table, "5000"} {
				sameLog(t, img.Path, "logdump -b "+b)
				sameLog(t, img.Path, "logdump -cb "+b)
			}
		})
	}
}

// inodeNormal drops what C shows of the inode as it is on disk, not in the log:
// its attributes.
func inodeNormal(s string) string {
	var b strings.Builder
	skip := false
	for l := range strings.Lines(s) {
		if strings.HasPrefix(l, "Extended attributes:") {
			skip = true
			continue
		}
		if skip = skip && strings.HasPrefix(l, "  ") && !strings.HasPrefix(l, "    "); !skip {
			b.WriteString(l)
		}
	}
	return b.String()
}

// TestLogdumpInode shows an inode of 256 bytes as the log has it, which C looks
// for in the wrong place.
func TestLogdumpInode(t *testing.T) {
	var d testfs.Dirty
	for _, x := range testfs.DirtyImages() {
		if x.Name == "ordered-flushed" {
			d = x
		}
	}
	img := d.Make(t)
	want, msg, status := ours("debugfs", "-R", "logdump -i <2>", img.Path)
	if status != 0 {
		t.Fatal(msg)
	}
	for _, s := range []string{
		"Inode 2 is at group 0", "(inode block for inode 2)", "    Inode: 2   Type: directory", "    Size of extra inode fields: 32\n", "    Blocks:  ",
	} {
		if !strings.Contains(want, s) {
			t.Errorf("no %q in\n%s", s, want)
		}
	}
	// The copy in the superblock finds the same journal, extents or not.
	a, _, _ := ours("debugfs", "-R", "logdump -a", img.Path)
	b, msg, status := ours("debugfs", "-R", "logdump -as", img.Path)
	if a != b || status != 0 {
		t.Errorf("-s: status %d: %s\n%s", status, msg, testfs.FirstDiff(a, b))
	}
	// To a file.
	file := filepath.Join(testfs.Scratch(t), "out")
	if out, msg, status := ours("debugfs", "-R", "logdump -a "+file, img.Path); out != "" || status != 0 {
		t.Errorf("to a file: status %d: %s%s", status, out, msg)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != a {
		t.Errorf("to a file: %v, %s", err, testfs.FirstDiff(a, string(got)))
	}
}

func TestLogdumpCommandLine(t *testing.T) {
	img := testfs.Mke2fs(t, testfs.Spec{Name: "plain", Type: "ext2", BlockSize: 1024, Size: 4 << 20})
	for _, c := range []struct{ request, want string }{
		{"logdump", "no journal"}, {"logdump -s", "no journal"}, {"logdump -b x", "not a number"}, {"logdump -b 999999", "999999"},
		{"logdump -n x", "not a number"}, {"logdump -i <0>", "inodes"}, {"logdump -f /missing", "missing"}, {"logdump a b", "usage"},
		{"logdump -q", "usage"}, {"stats -q", "usage"}, {"logdump -f " + img.Path, "no journal"},
	} {
		if out, msg, status := ours("debugfs", "-R", c.request, img.Path); status != exitFailed || !strings.Contains(msg, c.want) {
			t.Errorf("%s: status %d: %s%s", c.request, status, out, msg)
		}
	}
	if out, msg, status := ours("debugfs", "--json", "-R", "stats", img.Path); status != 0 || !strings.Contains(out, `"blocks_count": 4096`) || !strings.Contains(out, `"inode_table"`) {
		t.Errorf("status %d: %s%s", status, out, msg)
	}
}
