package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

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
	if r.flush {
		if err := blockdev.DropCache(file); err != nil {
			return cli.FsckError, err
		}
	}
	var dev blockdev.Device = file
	if r.journal != "" {
		j, err := blockdev.Open(r.journal, blockdev.Options{ReadOnly: !write, Exclusive: write, Direct: blockdev.DirectOff})
		if err != nil {
			return cli.FsckError, fmt.Errorf("journal: %w", err)
		}
		defer j.Close()
		r.opts.Journal = j
	}
	undo, err := r.openUndo(c, file)
	if err != nil {
		return cli.FsckError, err
	}
	if undo != nil {
		defer undo.file.Close()
		dev = undo
	}
	if r.scan > 0 { // past the page cache, where it can be
		scan, err := blockdev.Open(r.device, blockdev.Options{ReadOnly: r.scan < 2, Direct: blockdev.DirectAuto, Offset: r.offset})
		if err != nil {
			return cli.FsckError, fmt.Errorf("scan: %w", err)
		}
		defer scan.Close()
		r.opts.BadBlocks.Device = scan
	}
	ui, err := newUI(c, r)
	if err != nil {
		return cli.FsckError, err
	}
	if r.opts.Mode == fsck.ModeAsk && !ui.prompt.Terminal() && c.Stdin == io.Reader(os.Stdin) && !ui.answers && os.Getenv("E2FSCK_FORCE_INTERACTIVE") == "" {
		return cli.FsckError, errors.New("there is no terminal to ask questions at: use -n, -p or -y")
	}
	if r.fragcheck {
		r.opts.Fragment = ui.fragment
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r.opts.Asker = ui
	defer ui.bar.listen()()
	res, err := fsck.Check(ctx, dev, r.opts)
	if undo != nil {
		if e := undo.Finish(); err == nil && e != nil {
			err = e
		}
	}
	return ui.end(res, err)
}

// undoFile is the device that saves, and the file that it saves to.
type undoFile struct {
	*blockdev.Undo
	file *os.File
}

// openUndo begins the undo file if one was asked for, by -z or the configuration;
// else it returns nil.
func (r *request) openUndo(c *cli.Context, dev *blockdev.File) (*undoFile, error) {
	path := r.undo
	if r.opts.Mode == fsck.ModeNo {
		return nil, nil
	}
	if path == "" {
		dir := os.Getenv("E2FSPROGS_UNDO_DIR")
		if dir == "" {
			dir = r.settings.undoDir
		}
		if st, err := os.Stat(dir); dir == "" || dir == "none" || err != nil || !st.IsDir() {
			return nil, nil
		}
		path = filepath.Join(dir, "e2fsck-"+filepath.Base(r.device)+".e2undo")
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("undo file: %w", err)
		}
		fmt.Fprintf(c.Stderr, "What is overwritten is saved to %s; to take it back:\n    e2undo %s %s\n", cli.Clean(path), cli.Clean(path), cli.Clean(r.device))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("undo file: %w", err)
	}
	u, err := blockdev.NewUndo(dev, f, blockdev.UndoOptions{FSBlock: 1024, Offset: r.offset})
	if err != nil {
		f.Close()
		return nil, err
	}
	return &undoFile{u, f}, nil
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
