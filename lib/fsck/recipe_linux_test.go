package fsck_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

// A recipe damages a good file system. What C e2fsck finds in it is the measure,
// by code and inode: the tool logs both.
type recipe struct {
	name  string
	base  string
	codes []fsck.Code // are found
	edit  func(e *edit)
	opts  func(o *fsck.Options)
	conf  string   // the same, in the [options] of e2fsck.conf
	args  []string // or on the command line
	preen bool     // the repair is one that must not ask
	// journal is an external one, of makeJournal, after it has changed it.
	journal func(dev *edit)

	// differs says why the C tool, in its version 1.47.0, finds something else.
	differs string
	gaveUp  bool // the C tool does not repair it
	refused bool // the check is given up

	noForce   bool        // it is taken at its word
	noBackups bool        // of the superblock there are
	stays     []fsck.Code // are told of again and again
}

// recipeBases are what recipes start from.
var recipeBases = map[string]func(o *ext2fs.FormatOptions){
	"ext4": func(o *ext2fs.FormatOptions) {},
	"wide": func(o *ext2fs.FormatOptions) { o.Blocks, o.BlocksPerGroup = 12<<10, 8192 },
	"ext3": func(o *ext2fs.FormatOptions) {
		o.Incompat, o.InodeSize = ondisk.IncompatFiletype, 128
		o.ROCompat = ondisk.ROCompatSparseSuper | ondisk.ROCompatLargeFile
	},
	"rev0": func(o *ext2fs.FormatOptions) {
		o.Revision0, o.InodeSize, o.DescSize = true, 128, 0
		o.Compat, o.Incompat, o.ROCompat = 0, 0, 0
	},
	"ext2": func(o *ext2fs.FormatOptions) {
		o.Compat &^= ondisk.CompatHasJournal
		o.Incompat, o.InodeSize = ondisk.IncompatFiletype, 128
		o.ROCompat = ondisk.ROCompatSparseSuper
	},
	"nocsum": func(o *ext2fs.FormatOptions) {
		o.Compat &^= ondisk.CompatHasJournal
		o.Incompat &^= ondisk.IncompatFlexBG | ondisk.Incompat64Bit
		o.ROCompat &^= ondisk.ROCompatMetadataCsum
	},
	"uninit": func(o *ext2fs.FormatOptions) {
		o.Incompat &^= ondisk.Incompat64Bit
		o.ROCompat = o.ROCompat&^ondisk.ROCompatMetadataCsum | ondisk.ROCompatGDTCsum
	},
	"noflex": func(o *ext2fs.FormatOptions) { o.Incompat &^= ondisk.IncompatFlexBG },
	"bigalloc": func(o *ext2fs.FormatOptions) {
		o.Compat &^= ondisk.CompatHasJournal | ondisk.CompatResizeInode
		o.ROCompat |= ondisk.ROCompatBigalloc
		o.ClusterSize, o.BlocksPerGroup = 4096, 512
	},
	"inline": func(o *ext2fs.FormatOptions) {
		o.Compat &^= ondisk.CompatHasJournal
		o.Incompat |= ondisk.IncompatInlineData
	},
	"eainode": func(o *ext2fs.FormatOptions) { o.Incompat |= ondisk.IncompatEAInode },
	"orphans": func(o *ext2fs.FormatOptions) { o.Compat |= ondisk.CompatOrphanFile },
	"quota": func(o *ext2fs.FormatOptions) {
		o.Compat &^= ondisk.CompatHasJournal
		o.ROCompat |= ondisk.ROCompatQuota | ondisk.ROCompatProject
	},
	"mmp": func(o *ext2fs.FormatOptions) { o.Incompat |= ondisk.IncompatMMP },
	"metabg": func(o *ext2fs.FormatOptions) {
		o.Compat &^= ondisk.CompatResizeInode
		o.Incompat |= ondisk.IncompatMetaBG
	},
	"encrypt": func(o *ext2fs.FormatOptions) { o.Incompat |= ondisk.IncompatEncrypt },
	"casefold": func(o *ext2fs.FormatOptions) {
		o.Incompat |= ondisk.IncompatCasefold
		o.EncodingFlags = 1
	},
}

// journalUUID names the external journal of makeJournal.
var journalUUID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}

// makeJournal makes an external journal.
func makeJournal(t *testing.T) *edit {
	o := ext2fs.DefaultFormat()
	o.BlockSize, o.UUID, o.Time = 1024, journalUUID, 1_600_000_000
	o.Compat, o.Incompat, o.ROCompat = 0, ondisk.IncompatJournalDev, ondisk.ROCompatMetadataCsum
	dev := blockdev.NewMem(2 << 20)
	if _, err := ext2fs.Format(dev, o); err != nil {
		t.Fatal(err)
	}
	b := &base{data: make([]byte, dev.Size())}
	if _, err := dev.ReadAt(b.data, 0); err != nil {
		t.Fatal(err)
	}
	return b.edit(t)
}

// outside takes the journal out of the file system.
func outside(e *edit) {
	e.inode(ondisk.JournalIno, func(r ondisk.RawInode) { clear(r) })
	e.super(func(s *ondisk.Super) {
		s.JournalInum.Set(0)
		s.JournalUUID = journalUUID
		s.JnlBackupType[0] = 0
	})
}

// full makes file systems that have no block free.
func full(base string) func(o *ext2fs.FormatOptions) {
	return func(o *ext2fs.FormatOptions) {
		recipeBases[base](o)
		o.Label = fullLabel
	}
}

func init() {
	for name, of := range map[string]string{"full": "ext4", "full3": "ext3", "fullquota": "quota", "fullorphans": "orphans", "fullnoflex": "noflex"} {
		recipeBases[name] = full(of)
	}
}

// recipes are all of them, by file.
func recipes() []recipe {
	return slices.Concat(recipesSuper, recipesJournal, recipesInode, recipesBlocks, recipesXattr, recipesDir, recipesTree, recipesFull)
}

// quietCodes are those that open or close a group of others: how they are told of
// is a matter of taste.
var quietCodes = []fsck.Code{
	fsck.P0RelocateHint, fsck.P0GDTCsumLatch, fsck.P1InodeBlockLatch, fsck.P1InodeBBlockLatch, fsck.P1OrphanListRefugees, fsck.P1InodeTooBig,
	fsck.P1BDupHeader, fsck.P1BDupEnd, fsck.P5BlockHeader, fsck.P5BlockEnd, fsck.P5InodeHeader, fsck.P5InodeEnd,
	fsck.P1Pass, fsck.P1BPass, fsck.P1CPass, fsck.P1DPass, fsck.P1EPass, fsck.P2Pass, fsck.P3Pass, fsck.P3APass, fsck.P4Pass, fsck.P5Pass,
}

// newCodes are those that e2fsck 1.47.0 does not have.
var newCodes = []fsck.Code{fsck.P1EAInodeNonreg, fsck.P1EAInodeFeature, fsck.P2EAInodeRef, fsck.P4EAInodeSpurious, fsck.P3LoopedParent}

// found is what a check finds: codes, and the inodes that it finds them in; of
// entries, the directories.
type found map[fsck.Code]map[ondisk.Ino]bool

func (f found) add(code fsck.Code, ino ondisk.Ino) {
	if slices.Contains(quietCodes, code) {
		return
	}
	if code == fsck.P1BDupRange { // a run of one is told of so or so
		code = fsck.P1BDupBlock
	}
	if f[code] == nil {
		f[code] = map[ondisk.Ino]bool{}
	}
	f[code][ino] = true
}

// foundIn turns what was told of into codes with inodes.
func foundIn(log []fsck.Problem) found {
	f := found{}
	for _, p := range log {
		if p.Dir != 0 {
			f.add(p.Code, p.Dir)
		} else {
			f.add(p.Code, p.Ino)
		}
	}
	return f
}

func (f found) without(codes []fsck.Code) found {
	for _, c := range codes {
		delete(f, c)
	}
	return f
}

func (f found) String() string {
	var out []string
	for _, c := range slices.Sorted(maps.Keys(f)) {
		out = append(out, fmt.Sprintf("%#08x %s", uint32(c), c.Meaning()))
	}
	return strings.Join(out, "\n")
}

// diff tells where ours and c are not the same. Of passes 1 to 4 the inodes have to
// agree too, where both tell.
func (ours found) diff(c found) (bad []string) {
	for code, inos := range ours {
		others := c[code]
		if others == nil && slices.Contains(newCodes, code) {
			continue
		}
		if others == nil {
			bad = append(bad, fmt.Sprintf("only ours: %#08x %s %v", uint32(code), code.Meaning(), some(inos)))
			continue
		}
		if p := code >> 16; p >= 1 && p <= 4 && code.Pass() != fsck.P1BPass && code.Pass() != fsck.P1DPass && !inos[0] && !others[0] && !maps.Equal(inos, others) {
			bad = append(bad, fmt.Sprintf("%#08x %s: in %v, not %v", uint32(code), code.Meaning(), some(inos), some(others)))
		}
	}
	for code, inos := range c {
		if ours[code] == nil {
			bad = append(bad, fmt.Sprintf("only C:    %#08x %s %v", uint32(code), code.Meaning(), some(inos)))
		}
	}
	slices.Sort(bad)
	return bad
}

func some(m map[ondisk.Ino]bool) []ondisk.Ino {
	l := slices.Sorted(maps.Keys(m))
	return l[:min(len(l), 8)]
}

var logLine = regexp.MustCompile(`<problem code="(0x[0-9a-f]+)"([^>]*)/>`)
var logIno = regexp.MustCompile(` ino="(\d+)"`)

// cFound runs the C tool with a log of what it finds.
func cFound(t *testing.T, dir, img, extra string, args ...string) (int, found, string) {
	t.Helper()
	conf := filepath.Join(dir, "e2fsck.conf")
	text := "[options]\n\tproblem_log_filename = log.xml\n\tlog_dir = " + dir + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log.xml")
	os.Remove(log)
	cmd := exec.Command("timeout", append([]string{"60", testfs.Tool(t, "e2fsck")}, append(args, img)...)...)
	cmd.Env = append(os.Environ(), "E2FSCK_CONFIG="+conf)
	before, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := cmd.CombinedOutput()
	if strings.Contains(string(out), "SIGSEGV") { // some problems cannot be logged
		store(t, img, before)
		code, text := cFsck(t, append(args, img)...)
		return code, nil, text
	}
	f := found{}
	data, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(data), "</problem_log>") {
		f = nil // it gave up before it was written
	}
	if f == nil {
		return cmd.ProcessState.ExitCode(), nil, string(out)
	}
	for _, m := range logLine.FindAllStringSubmatch(string(data), -1) {
		code, _ := strconv.ParseUint(m[1][2:], 16, 32)
		ino := uint64(0)
		if i := logIno.FindStringSubmatch(m[2]); i != nil {
			ino, _ = strconv.ParseUint(i[1], 10, 32)
		}
		f.add(fsck.Code(code), ondisk.Ino(ino))
	}
	return cmd.ProcessState.ExitCode(), f, string(out)
}

// store writes an image with its holes.
func store(t testing.TB, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zero := make([]byte, 1<<12)
	for off := 0; off < len(data); off += len(zero) {
		p := data[off:min(off+len(zero), len(data))]
		if string(p) == string(zero[:len(p)]) {
			continue
		}
		if _, err := f.WriteAt(p, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func memOf(t testing.TB, data []byte) *blockdev.Mem {
	t.Helper()
	m := blockdev.NewMem(int64(len(data)))
	if _, err := m.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return m
}

// run checks one recipe and returns the codes that it reached.
func (r *recipe) run(t *testing.T, b *base) map[fsck.Code]bool {
	e := b.edit(t)
	r.edit(e)
	if r.noBackups {
		for g := 1; g < len(e.b)>>21; g++ { // groups of 2 MiB
			clear(e.b[1024*(1+2048*g):][:1024])
		}
	}
	dir := testfs.Scratch(t)
	var journal *edit
	var jArgs []string
	if r.journal != nil {
		journal = makeJournal(t)
		r.journal(journal)
		path := filepath.Join(dir, "journal")
		store(t, path, journal.b)
		jArgs = []string{"-j", path}
		r.args = append(r.args, jArgs...)
	}
	var ourJournal blockdev.Device
	check := func(dev blockdev.Device, mode fsck.Mode) (*fsck.Result, *recorder, error) {
		rec := &recorder{}
		o := fsck.Options{Mode: mode, Force: !r.noForce, Asker: rec}
		if r.opts != nil {
			r.opts(&o)
		}
		if journal != nil && (ourJournal == nil || mode == fsck.ModeNo) {
			ourJournal = memOf(t, journal.b)
		}
		o.Journal = ourJournal
		res, err := fsck.Check(context.Background(), dev, o)
		return res, rec, err
	}
	mem := memOf(t, e.b)
	_, no, noErr := check(blockdev.ReadOnly(mem), fsck.ModeNo)
	repair := fsck.ModeYes
	if r.preen {
		repair = fsck.ModePreen
	}
	res, yes, err := check(mem, repair)
	reached := map[fsck.Code]bool{}
	for _, p := range slices.Concat(no.log, yes.log) {
		reached[p.Code] = true
	}
	for _, c := range r.codes {
		if !reached[c] {
			t.Errorf("%#06x is not found: %s", uint32(c), c.Meaning())
		}
	}
	img := filepath.Join(dir, "image")
	store(t, img, e.b)
	force := "f"
	if r.noForce {
		force = ""
	}
	mode := "-y"
	if r.preen {
		mode = "-p"
	}
	verbose := os.Getenv("E2KIT_VERBOSE") != ""
	var (
		cno      int
		cnoFound found
		out      string
	)
	if noErr != nil || verbose {
		cno, cnoFound, out = cFound(t, dir, img, r.conf, append([]string{"-n" + force}, r.args...)...)
	}
	cyes, cyesFound, outYes := cFound(t, dir, img, r.conf, append([]string{mode + force}, r.args...)...)
	differ := false
	compare := func(what string, ours, c found) {
		if c == nil {
			return
		}
		bad := ours.diff(c)
		if len(bad) == 0 {
			return
		}
		differ = true
		if r.differs == "" {
			t.Errorf("%s:\n%s", what, strings.Join(bad, "\n"))
		} else {
			t.Logf("%s, known to differ since %s:\n%s", what, r.differs, strings.Join(bad, "\n"))
		}
	}
	// What is found after a problem that stays is a matter of taste.
	if bad := foundIn(no.log).diff(cnoFound); len(bad) > 0 && verbose {
		t.Logf("looking:\n%s", strings.Join(bad, "\n"))
	}
	compare("repairing", foundIn(yes.log), cyesFound)
	if r.differs != "" && !differ {
		t.Errorf("does not differ from the C tool, though it is said to since %s", r.differs)
	}
	if r.refused {
		if err == nil {
			t.Errorf("the check is not given up")
		}
		if cyes == 0 {
			t.Errorf("the C tool repairs it")
		}
		return reached
	}
	if full := b.ino["/filler"]; full != 0 {
		if err != nil && !expected(err) {
			t.Errorf("ends with %v", err)
		}
		// A block that is free again is not enough for all that may be left.
		data := make([]byte, mem.Size())
		if _, err := mem.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		e := (&base{data: data, ino: b.ino}).edit(t)
		e.inode(full, func(r ondisk.RawInode) { clear(r) })
		mem = memOf(t, e.b)
		if res, _, err = check(mem, fsck.ModeYes); err != nil {
			t.Fatal(err)
		}
		noErr = nil
	}
	if err != nil || noErr != nil && cno&^7 == 0 {
		t.Errorf("ends with %v, %v", noErr, err)
		return reached
	}
	if res.Left {
		t.Errorf("something is left after the repair")
	}
	if b.ino["/filler"] != 0 {
		cyes = 0
	}
	if cyes&^1 == 0 && r.gaveUp {
		t.Errorf("the C tool repairs it, though it is said not to")
	}
	if want := cyes&^1 == 0; r.differs == "" && !r.gaveUp && want != !res.Left {
		t.Errorf("the C tool ends with %d: %s", cyes, outYes)
	}
	if res2, again, err := check(mem, fsck.ModeYes); err != nil || res2.Fixed && r.stays == nil || res2.Left || len(foundIn(again.log).without(r.stays)) > 0 {
		t.Errorf("the second run: %v\n%s", err, foundIn(again.log))
	}
	data := make([]byte, mem.Size())
	if _, err := mem.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	store(t, img, data)
	if journal != nil {
		data := make([]byte, ourJournal.Size())
		if _, err := ourJournal.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		store(t, filepath.Join(dir, "journal"), data)
	}
	if code, f, out := cFound(t, dir, img, r.conf, append([]string{"-fn"}, jArgs...)...); code != 0 {
		t.Errorf("C e2fsck -fn ends with %d after the repair: %s\n%.2000s", code, f, out)
	}
	if verbose {
		t.Logf("C -fn: %d %s\nC -fy: %d %s", cno, out, cyes, outYes)
		for _, p := range yes.log {
			t.Logf("%06x %s", uint32(p.Code), p.String())
		}
	}
	return reached
}

// TestRecipes has for each problem code an image that has the problem.
func TestRecipes(t *testing.T) {
	bases := map[string]*base{}
	for name, change := range recipeBases {
		b := makeBase(t, change)
		bases[name] = b
		img := filepath.Join(testfs.Scratch(t), name)
		store(t, img, b.data)
		if code, out := cFsck(t, "-fn", img); code != 0 {
			t.Fatalf("%s: the base is not clean: %s", name, out)
		}
	}
	var mu sync.Mutex
	ran := 0
	reached := map[fsck.Code]bool{}
	t.Run("each", func(t *testing.T) {
		for _, r := range recipes() {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				if bases[r.base] == nil {
					t.Fatalf("no base %q", r.base)
				}
				codes := r.run(t, bases[r.base])
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(reached, codes)
				ran++
			})
		}
	})
	if ran < len(recipes()) {
		return // some were left out
	}
	for _, f := range faults { // TestFaults holds them to it
		reached[f.code] = true
	}
	var missing []string
	for _, c := range fsck.Codes() {
		switch why := unreached[c]; {
		case !reached[c] && why == "" && !slices.Contains(quietCodes, c):
			missing = append(missing, fmt.Sprintf("%#08x %s", uint32(c), c.Meaning()))
		case reached[c] && why != "":
			t.Errorf("%#08x is reached, though it is said not to be: %s", uint32(c), why)
		}
	}
	t.Logf("%d of %d codes are reached by %d recipes", len(reached), len(fsck.Codes()), len(recipes()))
	if len(missing) > 0 && !t.Failed() {
		t.Errorf("%d codes have neither a recipe nor a reason:\n%s", len(missing), strings.Join(missing, "\n"))
	}
}
