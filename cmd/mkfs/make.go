package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/mkfsconf"
	"github.com/e2kit/e2kit/lib/populate"
)

// maker is one run of the command.
type maker struct {
	*cli.Context
	*request
	extended
	prompt *cli.Prompter
	conf   *mkfsconf.Config
	types  mkfsconf.Types
	target target
	opts   ext2fs.FormatOptions
	log    uint   // block size is 1<<log, once known
	count  uint64 // of blocks, as asked for or as the device has
	delay  int64  // seconds until a question answers itself

	bytesPerInode int64 // once the types are known

	journalDev string // path of an external journal

	ctx          context.Context // ends when a signal asks to stop
	huge         *hugeFiles      // files to make in it, or nil
	tree         *populate.Tree  // what to fill it with, or nil
	fillProgress *fillProgress
}

// fail returns an error that ends the command.
func fail(format string, args ...any) error {
	return &cli.Exit{Status: exitFailure, Cause: fmt.Errorf(format, args...)}
}

// run makes the file system.
func (m *maker) run() error {
	m.extended = extended{}
	m.backups, m.extended.revision = -1, -1
	conf, err := mkfsconf.Load()
	if err != nil {
		return fail("configuration: %w", err)
	}
	m.conf = conf
	if v, ok := conf.Get("options", "proceed_delay"); ok {
		m.delay, _ = strconv.ParseInt(v, 0, 64)
	}
	for _, list := range m.request.extended {
		// The place of the file system must be known before its size.
		if err := m.extended.parse(list); err != nil {
			return err
		}
	}
	if err := m.findTarget(); err != nil {
		return err
	}
	settle := m.settle
	if m.auto {
		settle = m.settleBySource
	}
	if err := settle(); err != nil {
		return err
	}
	if m.tree != nil {
		defer m.tree.Close()
	}
	plan, err := m.plan()
	if err != nil {
		return err
	}
	if !m.noAction {
		if err := m.createTarget(); err != nil {
			return err
		}
	}
	m.show(plan)
	if plan.NoJournal {
		m.Warn(fmt.Errorf("%s is too small for a journal; it gets none", m.device))
	}
	if m.noAction {
		return nil
	}
	if m.superOnly {
		if err := m.askSuperOnly(plan); err != nil {
			return err
		}
	}
	return m.format()
}

// askSuperOnly says what -S does, and asks.
func (m *maker) askSuperOnly(plan *ext2fs.FormatResult) error {
	fmt.Fprintf(m.Stdout, "%s: only superblocks and group descriptors are written, which may do more harm to what is there.\n", m.device)
	if err := m.proceed(); err != nil {
		return err
	}
	if plan.Super.HasCompat(ondisk.CompatHasJournal) && m.journalDev == "" {
		fmt.Fprintln(m.Stdout, "The journal is not made: run e2fsck next.")
	}
	return nil
}

// settle decides what is made, of the size that was given.
func (m *maker) settle() error {
	if err := m.resolve(); err != nil {
		return err
	}
	if _, err := m.plan(); err != nil {
		return err
	}
	if err := m.checkTarget(); err != nil {
		return err
	}
	if err := m.loadSource(); err != nil {
		return err
	}
	if err := m.adopt(); err != nil {
		return err
	}
	m.raiseInodes()
	return m.checkRoom()
}

// plan computes what is going to be made.
func (m *maker) plan() (*ext2fs.FormatResult, error) {
	r, err := ext2fs.Plan(int64(m.opts.Blocks)<<m.log, m.opts)
	if err != nil {
		return nil, fail("%s: %w", m.device, err)
	}
	return r, nil
}

// format opens the device and makes the file system on it.
func (m *maker) format() error {
	dev, err := m.openTarget()
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := m.findBadBlocks(dev); err != nil {
		return err
	}
	if err := m.joinJournal(); err != nil {
		return err
	}
	var to blockdev.Device = dev
	undo, err := m.openUndo(dev)
	if err != nil {
		return err
	}
	if undo != nil {
		to = undo
		m.opts.Discard = false // what is discarded could not be saved
	}
	m.opts.SyncEvery = syncEvery(m)
	p := newProgress(m)
	m.opts.Progress = p.step
	if m.tree != nil || m.huge != nil {
		to, err = populate.Hold(to) // until it is filled there is no superblock
	}
	var r *ext2fs.FormatResult
	if err == nil {
		r, err = ext2fs.Format(&stopDevice{Device: to, ctx: m.ctx}, m.opts)
	}
	p.end(err == nil)
	var filling error
	if err == nil {
		if m.huge != nil && r.Zeroed {
			m.huge.discarded()
		}
		filling = m.fillHugeFiles(to)
	}
	if err == nil && filling == nil {
		filling = m.fill(to)
	}
	if undo != nil {
		if e := undo.Finish(); err == nil && e != nil {
			err = fmt.Errorf("undo file: %w", e)
		}
	}
	if err != nil {
		return fail("%s: no file system made: %w", m.device, err)
	}
	if filling != nil {
		return filling
	}
	m.tellResult(r)
	return nil
}

func (m *maker) tellResult(r *ext2fs.FormatResult) {
	for _, b := range r.BadBackups {
		m.Warn(fmt.Errorf("block %d is bad: the backup of superblock and descriptors there is damaged", b))
	}
	if r.Super.HasIncompat(ondisk.IncompatMMP) && !m.quiet {
		fmt.Fprintf(m.Stdout, "Multiple mount protection is enabled with update interval %d seconds.\n", r.Super.MMPInterval.Get())
	}
	if !m.quiet && r.Super.Checkinterval.Get() != 0 {
		fmt.Fprintf(m.Stdout, "It will be checked after %d mounts or %d days; tune2fs -c and -i change that.\n",
			int16(r.Super.MaxMntCount.Get()), r.Super.Checkinterval.Get()/86400)
	}
}

// timeEnv are the variables that tell the time; the first one that is set counts.
var timeEnv = []string{"E2FSPROGS_FAKE_TIME", "SOURCE_DATE_EPOCH"}

func timeGiven() bool { return os.Getenv(timeEnv[0]) != "" || os.Getenv(timeEnv[1]) != "" }

// now returns the time that the file system is made at, from the environment if
// that tells one.
func now() (int64, error) {
	for _, name := range timeEnv {
		if v := os.Getenv(name); v != "" {
			n, err := strconv.ParseInt(v, 0, 64)
			if err != nil {
				return 0, fail("%s=%s is not a number of seconds", name, v)
			}
			return n, nil
		}
	}
	return time.Now().Unix(), nil
}

// proceed asks whether to go on in spite of what was told, and ends the command
// if not. With -F nothing is asked.
func (m *maker) proceed() error {
	if m.force > 0 {
		return nil
	}
	answer := make(chan bool, 1)
	go func() {
		yes, err := m.prompt.Ask("Proceed anyway", false, false)
		answer <- yes && err == nil
	}()
	var timeout <-chan time.Time
	if m.delay > 0 {
		timeout = time.After(time.Duration(m.delay) * time.Second)
	}
	select {
	case yes := <-answer:
		if yes {
			return nil
		}
		return &cli.Exit{Status: exitFailure}
	case <-timeout:
		fmt.Fprintln(m.Stdout)
		return nil
	case <-m.ctx.Done():
		fmt.Fprintln(m.Stdout)
		return fail("%w; nothing was changed", context.Cause(m.ctx))
	}
}
