package fsck

import (
	"errors"
)

// Mode says who answers questions.
type Mode int

const (
	ModeAsk   Mode = iota // the Asker
	ModeNo                // no to all; nothing is written
	ModeYes               // yes to all
	ModePreen             // what is safe is repaired; at anything else the run ends
)

// An Asker is told what is found, and asked what to do.
type Asker interface {
	// Tell is called for each problem, when it has been answered if there was a
	// question.
	Tell(p *Problem)
	// Ask is called with ModeAsk. def is what is proposed.
	Ask(p *Problem, def bool) (yes bool)
	// Pass is called when a pass begins, with its code.
	Pass(c Code)
	// Note is called with what is no problem but good to know: that the journal is
	// replayed, and why a check is made that was not asked for.
	Note(text string)
	// Progress is called now and then: how much of a pass (1 to 5) is done.
	Progress(pass int, done, total uint64)
}

// nobody is the Asker of a run without one.
type nobody struct{}

func (nobody) Tell(*Problem)                {}
func (nobody) Ask(*Problem, bool) bool      { return false }
func (nobody) Pass(Code)                    {}
func (nobody) Note(string)                  {}
func (nobody) Progress(int, uint64, uint64) {}

// How a run ends before its end.
var (
	errRestart = errors.New("start again from the beginning")
	// ErrAborted: what was found does not let the check go on.
	ErrAborted = errors.New("the check was given up")
	// ErrUnusable: there is no superblock, or none that can be worked with.
	ErrUnusable = errors.New("no usable superblock")
	// ErrManual: with ModePreen, something needs a person to decide.
	ErrManual = errors.New("what was found is for a person to decide")
)

// halt carries an error out of the passes, which have no other way to fail in
// the middle of a structure.
type halt struct{ err error }

func (c *checker) abort(err error) { panic(halt{err}) }

// latchState is how the question of a group was answered.
type latchState struct {
	open, yes, suppress bool
}

// fix reports a problem and returns whether to do what its row proposes.
func (c *checker) fix(code Code, p Problem) bool {
	c.leave()
	if c.opts.Overrides[code].Ignore {
		return false
	}
	p.Code = code
	r, never := c.row(code)
	quiet := false
	var l *latchState
	if r.latch != latchNone {
		l = &c.latch[r.latch]
		if !l.open {
			l.open = true
			q := p
			if latchRows[r.latch].end != 0 || r.latch == latchReloc {
				q = at(0)
			}
			if r.latch == latchDup {
				q.Ino = p.Ino
			}
			if open := latchRows[r.latch].open; open != 0 && !(open == P0RelocateHint && c.triedBackup) {
				l.yes = c.fix(open, q)
			}
		}
		quiet = l.suppress
	}
	def := !r.defaultNo && c.opts.Mode != ModeNo
	switch {
	case never:
		p.Asked = r.ask != askNone
	case r.ask == askNone:
		p.Answer = def
	case c.opts.Mode == ModePreen:
		p.Asked = true
		switch r.preen {
		case preenStops:
			c.note(&p)
			c.invalid = true
			c.abort(ErrManual)
		case preenLeaves:
		default:
			p.Answer = !r.defaultNo
		}
	case l != nil && latchRows[r.latch].end == 0 && latchRows[r.latch].open.row().ask != askNone:
		p.Asked, p.Answer = true, l.yes
	default:
		p.Asked = true
		switch c.opts.Mode {
		case ModeYes:
			p.Answer = true
		case ModeAsk:
			if c.always[code] {
				p.Answer = true
			} else {
				p.Answer = c.opts.Asker.Ask(&p, def)
			}
		}
	}
	if p.Asked && !p.Answer && !r.noOK {
		c.invalid = true
	}
	if p.Answer && !r.notFix && !c.noFix && c.canWrite() {
		c.fixed = true
	}
	if !quiet {
		c.note(&p)
	}
	if r.preen == preenFatal || r.ask == askAbort && p.Answer {
		c.abort(ErrAborted)
	}
	return p.Answer && c.canWrite()
}

// Override changes what is done about a problem. What is nil stays as it is.
type Override struct {
	PreenOK   *bool // a run that must not ask repairs it, or leaves it to a person
	NoOK      *bool // a no leaves nothing wrong
	NoDefault *bool // what is proposed is no
	NotAFix   *bool // what is done about it is no correction
	ForceNo   bool  // it is not repaired, whoever says yes
	Ignore    bool  // it is not told of, and left alone
}

// row returns the row of a code, with what the options change of it, and whether
// the answer is no whatever it says.
func (c *checker) row(code Code) (r *row, never bool) {
	if r = code.row(); r == nil {
		panic("fsck: no row for a code")
	}
	o, ok := c.opts.Overrides[code]
	if !ok && !r.notFix {
		return r, false
	}
	n := *r
	n.noOK = r.noOK || r.notFix // what only improves something can be left
	set := func(to *bool, v *bool) {
		if v != nil {
			*to = *v
		}
	}
	set(&n.defaultNo, o.NoDefault)
	set(&n.notFix, o.NotAFix)
	set(&n.noOK, o.NoOK)
	if o.PreenOK != nil && r.preen != preenFatal && r.ask != askNone {
		n.preen = preenStops
		if *o.PreenOK {
			n.preen = preenDoes
		}
	}
	return &n, o.ForceNo
}

// tell reports a problem about which nothing is asked.
func (c *checker) tell(code Code, p Problem) { c.fix(code, p) }

// note counts a problem and passes it on.
func (c *checker) note(p *Problem) {
	c.res.count(p)
	c.opts.Asker.Tell(p)
}

// endLatch closes a group of problems.
func (c *checker) endLatch(l latch) (yes bool) {
	if !c.latch[l].open {
		return false
	}
	if end := latchRows[l].end; end != 0 {
		yes = c.fix(end, at(0))
	} else {
		yes = c.latch[l].yes
	}
	c.latch[l] = latchState{}
	return yes
}

// unrepaired reports a problem that is found but not repaired: it counts as
// left, whatever the mode.
func (c *checker) unrepaired(code Code, p Problem) {
	p.Code = code
	c.invalid = true
	if c.opts.Mode == ModePreen && code.row().preen == preenStops {
		c.note(&p)
		c.abort(ErrManual)
	}
	p.Text = "this cannot be repaired yet"
	c.note(&p)
}
