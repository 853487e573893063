package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
)

// run checks the device and returns the exit status.
func (r *request) run(c *cli.Context) (int, error) {
	write := r.opts.Mode != fsck.ModeNo
	file, err := blockdev.Open(r.device, blockdev.Options{
		ReadOnly: !write, Exclusive: write, Direct: blockdev.DirectOff, Offset: r.offset,
	})
	if err != nil {
		return cli.FsckError, err
	}
	defer file.Close()
	var dev blockdev.Device = file
	if r.journal != "" {
		j, err := blockdev.Open(r.journal, blockdev.Options{ReadOnly: !write, Exclusive: write, Direct: blockdev.DirectOff})
		if err != nil {
			return cli.FsckError, fmt.Errorf("journal: %w", err)
		}
		defer j.Close()
		r.opts.Journal = j
	}
	var undo *blockdev.Undo
	if r.undo != "" && write {
		f, err := os.OpenFile(r.undo, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return cli.FsckError, fmt.Errorf("undo file: %w", err)
		}
		defer f.Close()
		if undo, err = blockdev.NewUndo(file, f, blockdev.UndoOptions{FSBlock: 1024, Offset: r.offset}); err != nil {
			return cli.FsckError, err
		}
		dev = undo
	}
	ui, err := newUI(c, r)
	if err != nil {
		return cli.FsckError, err
	}
	if r.opts.Mode == fsck.ModeAsk && !ui.prompt.Terminal() && c.Stdin == io.Reader(os.Stdin) && !ui.answers {
		return cli.FsckError, errors.New("there is no terminal to ask questions at: use -n, -p or -y")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r.opts.Asker = ui
	began := time.Now()
	res, err := fsck.Check(ctx, dev, r.opts)
	if undo != nil {
		if e := undo.Finish(); err == nil && e != nil {
			err = e
		}
	}
	return ui.end(res, err, time.Since(began)), nil
}

// status returns the exit status for how a check ended.
func status(res *fsck.Result, err error) int {
	s := 0
	switch {
	case err == nil && res.Fixed && res.Changed:
		s |= cli.FsckFixed
	case err == nil, errors.Is(err, fsck.ErrManual):
	case errors.Is(err, context.Canceled):
		s |= cli.FsckCancelled
	case res.SuperError != nil:
		return cli.FsckError
	default:
		s |= cli.FsckError
	}
	if res.Left {
		s |= cli.FsckUncorrected
	}
	return s
}
