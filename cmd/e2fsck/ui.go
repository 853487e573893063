package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/fsck"
)

// ui tells people and scripts what is found, and asks them.
type ui struct {
	r       *request
	out     io.Writer // to people, and to the log
	quiet   io.Writer // to the log alone
	prompt  *cli.Prompter
	answers bool // standard input has answers, though it is no terminal
	always  map[fsck.Code]bool
	told    map[fsck.Code]int // how often, where there is a limit
	log     *problemLog
	text    *logFile // a copy of what is printed; nil: none
	enc     *json.Encoder
	bar     *progress
	times   *stopwatch // nil: not asked for
}

func newUI(c *cli.Context, r *request) (*ui, error) {
	u := &ui{r: r, out: c.Stdout, quiet: io.Discard, always: map[fsck.Code]bool{}, told: map[fsck.Code]int{}}
	if f, ok := c.Stdin.(*os.File); ok {
		st, err := f.Stat()
		u.answers = err == nil && st.Mode()&os.ModeCharDevice == 0
	} else {
		u.answers = true
	}
	now, s := r.now(), &r.settings
	if s.logName != "" {
		l, err := s.logs.openLog(s.logName, r.device, now)
		if err != nil {
			return nil, err
		}
		u.text, u.quiet, u.out = l, l, io.MultiWriter(c.Stdout, l)
		fmt.Fprintf(l, "E2fsck run: %s\n%s\n", strings.Join(append([]string{c.Prog}, r.args...), " "), version)
	}
	if s.problemLogName != "" {
		l, err := s.logs.openLog(s.problemLogName, r.device, now)
		if err != nil {
			return nil, err
		}
		u.log = newProblemLog(l, r.device)
	}
	if r.json {
		u.enc = json.NewEncoder(c.Stdout)
	}
	u.prompt = &cli.Prompter{In: c.Stdin, Out: u.out}
	u.bar = newProgress(r, c.Stdout, u.enc)
	if r.timing > 0 {
		u.times = newStopwatch()
	}
	return u, nil
}

// where returns what a problem is printed to: there may be too many of its kind,
// or it may be one that nobody wants to hear of.
func (u *ui) where(p *fsck.Problem) io.Writer {
	w := u.r.settings.problems[p.Code]
	if w.preenSilent && u.r.preen() || w.silentIfNot && (u.r.opts.Mode == fsck.ModeNo || u.r.opts.Overrides[p.Code].ForceNo) {
		return u.quiet
	}
	most := w.maxCount
	if most == 0 {
		most = u.r.settings.maxCount
	}
	if most == 0 || u.r.opts.Mode == fsck.ModeAsk && p.Asked {
		return u.out
	}
	if u.told[p.Code]++; u.told[p.Code] <= most {
		return u.out
	}
	if u.told[p.Code] == most+1 {
		fmt.Fprintf(u.out, "More than %d problems of code 0x%06x: the rest are not shown.\n", most, uint32(p.Code))
	}
	return u.quiet
}

// words says what is wrong, in the words of the configuration if it has some.
func (u *ui) words(p *fsck.Problem) string {
	if t := u.r.settings.problems[p.Code].text; t != "" {
		q := *p
		return cli.Clean(q.With(t))
	}
	return cli.Clean(p.String())
}

// finding is a problem as --json tells it.
type finding struct {
	Code     string `json:"code"`
	Meaning  string `json:"meaning"`
	Text     string `json:"text"`
	Inode    uint32 `json:"inode,omitempty"`
	Dir      uint32 `json:"directory,omitempty"`
	Name     string `json:"name,omitempty"`
	Group    *int64 `json:"group,omitempty"`
	Block    uint64 `json:"block,omitempty"`
	Lblk     *int64 `json:"file_block,omitempty"`
	Question string `json:"question,omitempty"`
	Answer   *bool  `json:"answer,omitempty"`
}

// Tell implements fsck.Asker.
func (u *ui) Tell(p *fsck.Problem) {
	if u.log != nil {
		u.log.problem(p)
	}
	if u.enc != nil {
		f := finding{Code: fmt.Sprintf("%#06x", uint32(p.Code)), Meaning: p.Code.Meaning(), Text: p.String(), Inode: uint32(p.Ino),
			Dir: uint32(p.Dir), Name: p.Name, Block: uint64(p.Blk)}
		if p.Group >= 0 {
			f.Group = &p.Group
		}
		if p.Lblk >= 0 {
			f.Lblk = &p.Lblk
		}
		if p.Asked {
			f.Question, f.Answer = p.Question(), &p.Answer
		}
		_ = u.enc.Encode(f)
		return
	}
	if u.r.preen() && p.Code.Pass() == 0x050000 {
		return // counts that a crash leaves behind are nothing to tell of
	}
	if u.differences(p) {
		return
	}
	out, text := u.where(p), u.words(p)
	if u.r.preen() {
		text = u.r.name + ": " + text
	}
	if !p.Asked {
		fmt.Fprintf(out, "%s.\n", text)
		return
	}
	if u.r.opts.Mode == fsck.ModeAsk {
		return // it was printed with the question
	}
	switch {
	case u.r.preen() && p.Answer:
		fmt.Fprintf(out, "%s.  %s: done.\n", text, p.Question())
	case u.r.preen():
		fmt.Fprintf(out, "%s.  %s: not done.\n", text, p.Question())
	default:
		fmt.Fprintf(out, "%s.  %s? %s\n\n", text, p.Question(), map[bool]string{true: "yes", false: "no"}[p.Answer])
	}
}

// fragment prints a line of -E fragcheck, in the form of the C tool.
func (u *ui) fragment(f fsck.Fragment) {
	if u.enc != nil {
		_ = u.enc.Encode(struct {
			Fragment fsck.Fragment `json:"fragment"`
		}{f})
		return
	}
	kind := '?'
	switch {
	case f.Dir:
		kind = 'd'
	case f.Reg:
		kind = 'f'
	}
	if f.Extent {
		fmt.Fprintf(u.out, "%6d(%c): expecting %6d actual extent phys %6d log %d len %d\n", f.Ino, kind, f.Want, f.Blk, f.Lblk, f.Len)
	} else {
		fmt.Fprintf(u.out, "%6d(%c): expecting %6d got phys %6d (blkcnt %d)\n", f.Ino, kind, f.Want, f.Blk, f.Lblk)
	}
}

// differences prints the members of a list of differences of a bitmap on one line.
func (u *ui) differences(p *fsck.Problem) bool {
	run := func(sign string, first uint64) {
		if p.Num > 1 {
			fmt.Fprintf(u.out, " %s(%d--%d)", sign, first, first+p.Num-1)
		} else {
			fmt.Fprintf(u.out, " %s%d", sign, first)
		}
	}
	switch p.Code {
	case fsck.P5BlockHeader:
		fmt.Fprint(u.out, "Block bitmap differences: ")
	case fsck.P5InodeHeader:
		fmt.Fprint(u.out, "Inode bitmap differences: ")
	case fsck.P5BlockUnused, fsck.P5BlockRangeUnused:
		run("-", uint64(p.Blk))
	case fsck.P5BlockUsed, fsck.P5BlockRangeUsed:
		run("+", uint64(p.Blk))
	case fsck.P5InodeUnused, fsck.P5InodeRangeUnused:
		run("-", uint64(p.Ino))
	case fsck.P5InodeUsed, fsck.P5InodeRangeUsed:
		run("+", uint64(p.Ino))
	case fsck.P5BlockEnd, fsck.P5InodeEnd:
		if u.r.opts.Mode != fsck.ModeAsk {
			fmt.Fprintf(u.out, "\nFix? %s\n\n", map[bool]string{true: "yes", false: "no"}[p.Answer])
		}
	default:
		return false
	}
	return true
}

// Ask implements fsck.Asker.
func (u *ui) Ask(p *fsck.Problem, def bool) bool {
	if u.always[p.Code] {
		return true
	}
	if p.Code == fsck.P5BlockEnd || p.Code == fsck.P5InodeEnd {
		fmt.Fprintln(u.out)
	} else {
		fmt.Fprintf(u.out, "%s.  ", u.words(p))
	}
	all := u.prompt.Fixed
	yes, err := u.prompt.Ask(p.Question(), def, true)
	if u.prompt.Fixed != all { // "a": yes to all of this kind
		u.prompt.Fixed = all
		u.always[p.Code] = true
	}
	return yes && err == nil
}

// passNames are what a pass does, in a line each.
var passNames = map[fsck.Code]string{
	fsck.P1Pass:  "Pass 1: Checking inodes, blocks, and sizes",
	fsck.P1BPass: "Pass 1B: Looking for who shares blocks",
	fsck.P1CPass: "Pass 1C: Looking for the names of files that share blocks",
	fsck.P1DPass: "Pass 1D: Giving files blocks of their own",
	fsck.P1EPass: "Pass 1E: Optimizing extent trees",
	fsck.P2Pass:  "Pass 2: Checking directory structure",
	fsck.P3Pass:  "Pass 3: Checking directory connectivity",
	fsck.P3APass: "Pass 3A: Optimizing directories",
	fsck.P4Pass:  "Pass 4: Checking reference counts",
	fsck.P5Pass:  "Pass 5: Checking group summary information",
}

// Pass implements fsck.Asker.
func (u *ui) Pass(c fsck.Code) {
	if u.log != nil {
		u.log.header(c)
	}
	u.bar.end()
	if u.times != nil && u.enc == nil {
		u.times.pass(u.out, c, u.r.timing > 1)
	}
	if u.enc == nil && !u.r.preen() {
		fmt.Fprintln(u.out, passNames[c])
	}
}

// Note implements fsck.Asker.
func (u *ui) Note(text string) {
	if u.enc == nil {
		fmt.Fprintf(u.out, "%s: %s\n", u.r.name, text)
	}
}

// Progress implements fsck.Asker.
func (u *ui) Progress(pass int, done, total uint64) { u.bar.at(pass, done, total) }

// end prints how the check ended, ends the logs, and returns the exit status.
func (u *ui) end(res *fsck.Result, err error) (int, error) {
	s := status(res, err)
	if s&cli.FsckCancelled != 0 && u.r.settings.allowCancel && res.LastState&ondisk.StateError == 0 {
		s &^= cli.FsckCancelled | cli.FsckUncorrected
	}
	u.bar.close()
	u.tell(res, err, s)
	var e1, e2 error
	if u.log != nil {
		e1 = u.log.close()
	}
	if u.text != nil {
		fmt.Fprintf(u.text, "Exit status: %d\n", s)
		e2 = u.text.Close()
	}
	return s, errors.Join(e1, e2)
}

// tell prints how a check ended, with exit status s.
func (u *ui) tell(res *fsck.Result, err error, s int) {
	if u.enc != nil {
		o := struct {
			*fsck.Result
			ExitStatus int    `json:"exit_status"`
			Error      string `json:"error,omitempty"`
		}{res, s, ""}
		if err != nil {
			o.Error = err.Error()
		}
		_ = u.enc.Encode(o)
		return
	}
	name := u.r.name
	if err != nil {
		switch {
		case errors.Is(err, fsck.ErrManual):
			fmt.Fprintf(u.out, "\n%s: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n\t(-y answers yes to all questions, without -a and -p they are asked)\n", name)
		case res.SuperError != nil:
			fmt.Fprintf(u.out, "%s: %s\nIf this is an ext2, ext3 or ext4 file system, try another copy of the superblock:\n    e2fsck -b 8193 <device>\n or\n    e2fsck -b 32768 <device>\n",
				name, cli.Clean(err.Error()))
		default:
			fmt.Fprintf(u.out, "%s: %s\n", name, cli.Clean(err.Error()))
		}
	}
	if res.JournalSkipped {
		fmt.Fprintf(u.out, "%s: the journal was not replayed, since nothing is to be written: what it would mend is told of as well\n", name)
	}
	if res.Clean {
		fmt.Fprintf(u.out, "%s: clean, %d/%d files, %d/%d blocks\n", name, res.InodesUsed, res.Inodes, res.BlocksUsed, res.Blocks)
		return
	}
	if res.SuperError != nil {
		return
	}
	if res.Changed && !u.r.preen() {
		fmt.Fprintf(u.out, "\n%s: ***** FILE SYSTEM WAS MODIFIED *****\n", name)
	}
	if res.Left && !errors.Is(err, fsck.ErrManual) {
		fmt.Fprintf(u.out, "\n%s: ********** WARNING: Filesystem still has errors **********\n\n", name)
	}
	if err == nil && !u.r.opts.OnlyJournal {
		u.summary(res)
	}
	if u.times != nil {
		u.times.end(u.out, u.r.timing > 1, res)
	}
}

// tenths returns a share in percent, with a digit behind the point.
func tenths(n, of uint64) string {
	if of == 0 {
		return "0.0"
	}
	x := (n*10000/of + 5) / 10
	return fmt.Sprintf("%d.%d", x/10, x%10)
}

// summary prints the last line, or with -v the statistics.
func (u *ui) summary(r *fsck.Result) {
	if !u.r.verbose {
		fmt.Fprintf(u.out, "%s: %d/%d files (%s%% non-contiguous), %d/%d blocks\n", u.r.name, r.InodesUsed, r.Inodes,
			tenths(r.Fragmented, r.InodesUsed), r.BlocksUsed, r.Blocks)
		return
	}
	line := func(n uint64, one, many string) {
		if n != 1 {
			one = many
		}
		fmt.Fprintf(u.out, "%12d %s\n", n, one)
	}
	hundredths := func(n, of uint64) string {
		if of == 0 {
			return "0.00"
		}
		return fmt.Sprintf("%.2f", 100*float64(n)/float64(of))
	}
	if u.r.settings.reportFeatures {
		fmt.Fprintf(u.out, "\nFilesystem features: %s\n", r.Features)
	}
	fmt.Fprintln(u.out)
	fmt.Fprintf(u.out, "%12d inode%s used (%s%%, out of %d)\n", r.InodesUsed, plural(r.InodesUsed), hundredths(r.InodesUsed, r.Inodes), r.Inodes)
	fmt.Fprintf(u.out, "%12d non-contiguous file%s (%s%%)\n", r.Fragmented, plural(r.Fragmented), tenths(r.Fragmented, r.InodesUsed))
	fmt.Fprintf(u.out, "%12d non-contiguous director%s (%s%%)\n", r.FragmentedDirs, map[bool]string{true: "y", false: "ies"}[r.FragmentedDirs == 1], tenths(r.FragmentedDirs, r.InodesUsed))
	fmt.Fprintf(u.out, "             # of inodes with ind/dind/tind blocks: %d/%d/%d\n", r.Ind, r.Dind, r.Tind)
	depth, last := "", -1
	for i, n := range r.ExtentDepth {
		if n > 0 {
			last = i
		}
	}
	for i := 0; i <= last; i++ {
		if i > 0 {
			depth += "/"
		}
		depth += fmt.Sprint(r.ExtentDepth[i])
	}
	if depth != "" {
		fmt.Fprintf(u.out, "             Extent depth histogram: %s\n", depth)
	}
	fmt.Fprintf(u.out, "%12d block%s used (%s%%, out of %d)\n", r.BlocksUsed, plural(r.BlocksUsed), hundredths(r.BlocksUsed, r.Blocks), r.Blocks)
	line(r.BadBlocks, "bad block", "bad blocks")
	line(r.LargeFiles, "large file", "large files")
	fmt.Fprintln(u.out)
	line(r.Regular, "regular file", "regular files")
	line(r.Dirs, "directory", "directories")
	line(r.Chardevs, "character device file", "character device files")
	line(r.Blockdevs, "block device file", "block device files")
	line(r.Fifos, "fifo", "fifos")
	line(r.Links, "link", "links")
	fmt.Fprintf(u.out, "%12d symbolic link%s (%d fast symbolic link%s)\n", r.Symlinks, plural(r.Symlinks), r.FastSymlinks, plural(r.FastSymlinks))
	line(r.Sockets, "socket", "sockets")
	fmt.Fprintln(u.out, "------------")
	total := r.Regular + r.Dirs + r.Chardevs + r.Blockdevs + r.Fifos + r.Links + r.Symlinks + r.Sockets
	line(total, "file", "files")
}

func plural(n uint64) string {
	if n == 1 {
		return ""
	}
	return "s"
}
