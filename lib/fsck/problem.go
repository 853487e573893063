package fsck

import (
	"fmt"
	"slices"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// A Problem is what was found, where, and what was done about it. Fields that
// mean nothing for its code are zero.
type Problem struct {
	Code  Code
	Ino   ondisk.Ino   // the inode that it is about
	Dir   ondisk.Ino   // the directory that holds the entry
	Name  string       // of that entry, as it is on disk
	Path  string       // of Ino or of the entry, as far as it is known
	Group int64        // block group, -1 if none
	Blk   ondisk.Fsblk // block of the device
	Lblk  int64        // block of the file, or of the directory; -1 if none
	Off   int64        // byte in that block; -1 if none
	Num   uint64       // how many, or the value that was found
	Want  uint64       // the value that it should have
	Vals  bool         // Num and Want are the value found and the one wanted
	Text  string       // anything else

	Asked  bool // there was a question, of which Answer tells the answer
	Answer bool
}

// at returns a Problem without any place.
func at(ino ondisk.Ino) Problem { return Problem{Ino: ino, Group: -1, Lblk: -1, Off: -1} }

// Meaning returns what the code says, without place.
func (c Code) Meaning() string {
	if r := c.row(); r != nil {
		return r.meaning
	}
	return fmt.Sprintf("problem %#06x", uint32(c))
}

// Pass returns the pass that raises the code, as a code of its own.
func (c Code) Pass() Code { return c &^ 0xfff }

func (c Code) row() *row {
	i, ok := slices.BinarySearchFunc(table[:], c, func(r row, c Code) int { return int(r.code) - int(c) })
	if !ok {
		return nil
	}
	return &table[i]
}

// Codes returns all codes there are.
func Codes() []Code {
	out := make([]Code, len(table))
	for i := range table {
		out[i] = table[i].code
	}
	return out
}

// Question returns what is asked about the problem, "" if nothing is.
func (p *Problem) Question() string {
	r := p.Code.row()
	if r == nil {
		return ""
	}
	if r.question != "" {
		return r.question
	}
	return askWords[r.ask]
}

// String says what is wrong and where, without the question.
func (p *Problem) String() string { return p.With(p.Code.Meaning()) }

// With is String with other words for what is wrong.
func (p *Problem) With(meaning string) string {
	var w []string
	if p.Group >= 0 {
		w = append(w, fmt.Sprintf("group %d", p.Group))
	}
	if p.Dir != 0 {
		s := fmt.Sprintf("entry '%s' in directory %d", p.Name, p.Dir)
		if p.Path != "" {
			s += " (" + p.Path + ")"
		}
		w = append(w, s)
	}
	if p.Ino != 0 {
		s := fmt.Sprintf("inode %d", p.Ino)
		if p.Path != "" && p.Dir == 0 {
			s += " (" + p.Path + ")"
		}
		w = append(w, s)
	}
	if p.Lblk >= 0 {
		w = append(w, fmt.Sprintf("block #%d", p.Lblk))
	}
	if p.Blk != 0 {
		w = append(w, fmt.Sprintf("block %d", p.Blk))
	}
	if p.Off >= 0 {
		w = append(w, fmt.Sprintf("offset %d", p.Off))
	}
	s := strings.TrimPrefix(meaning, "collecting question for ")
	if len(w) > 0 {
		s = strings.Join(w, ", ") + ": " + s
	} else {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if s[:5] == "group" || s[:5] == "inode" || s[:5] == "entry" || s[:5] == "block" {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	switch {
	case p.Vals:
		s += fmt.Sprintf(" (%d, should be %d)", p.Num, p.Want)
	case p.Num != 0:
		s += fmt.Sprintf(" (%d)", p.Num)
	}
	if p.Text != "" {
		s += ": " + p.Text
	}
	return s
}

// ask is what a row asks.
type ask uint8

const (
	askNone ask = iota
	askFix
	askClear
	askRelocate
	askAllocate
	askExpand
	askConnect
	askCreate
	askSalvage
	askTruncate
	askClearInode
	askAbort
	askSplit
	askContinue
	askClone
	askDelete
	askSuppress
	askUnlink
	askClearHtree
	askRecreate
	askOptimize
	askClearFlag
	askText
)

var askWords = [...]string{
	askNone: "", askFix: "Fix", askClear: "Clear", askRelocate: "Relocate", askAllocate: "Allocate",
	askExpand: "Expand", askConnect: "Connect to /lost+found", askCreate: "Create", askSalvage: "Salvage",
	askTruncate: "Truncate", askClearInode: "Clear inode", askAbort: "Abort", askSplit: "Split",
	askContinue: "Continue", askClone: "Clone the shared blocks", askDelete: "Delete the file",
	askSuppress: "Suppress further messages", askUnlink: "Unlink", askClearHtree: "Clear the index",
	askRecreate: "Recreate", askOptimize: "Optimize", askClearFlag: "Clear the flag",
}

// preen is what a run that must not ask does about a row.
type preen uint8

const (
	preenSays   preen = iota // tells, and goes on
	preenDoes                // repairs
	preenLeaves              // answers no, and goes on
	preenStops               // leaves it to a person
	preenFatal               // gives up, however it is run
)

// latch is a group of problems for which one question is asked.
type latch uint8

const (
	latchNone latch = iota
	latchReloc
	latchGDTCsum
	latchBlock
	latchBBlock
	latchLowDtime
	latchTooBig
	latchDup
	latchBBitmap
	latchIBitmap
	latchDir
	latchExt
	latches
)

// latchRows has the problem that opens each group, and the one that closes it.
var latchRows = [latches]struct{ open, end Code }{
	latchReloc:    {P0RelocateHint, 0},
	latchGDTCsum:  {P0GDTCsumLatch, 0},
	latchBlock:    {P1InodeBlockLatch, 0},
	latchBBlock:   {P1InodeBBlockLatch, 0},
	latchLowDtime: {P1OrphanListRefugees, 0},
	latchTooBig:   {P1InodeTooBig, 0},
	latchDup:      {P1BDupHeader, P1BDupEnd},
	latchBBitmap:  {P5BlockHeader, P5BlockEnd},
	latchIBitmap:  {P5InodeHeader, P5InodeEnd},
}

// row is a problem in the table.
type row struct {
	code      Code
	meaning   string
	question  string // instead of the usual one of ask
	ask       ask
	preen     preen
	latch     latch
	defaultNo bool // what is proposed is no
	noOK      bool // a no leaves nothing wrong
	notFix    bool // what is done about it does not count as a correction
}
