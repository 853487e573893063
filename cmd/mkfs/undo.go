package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// openUndo begins an undo file if one was asked for, by -z or the configuration;
// else it returns nil.
func (m *maker) openUndo(dev *blockdev.File) (*undoFile, error) {
	if m.undo == nil && !m.types.Bool("force_undo", false) {
		return nil, nil
	}
	path := ""
	if m.undo != nil {
		path = *m.undo
	}
	if path == "" {
		dir := os.Getenv("E2FSPROGS_UNDO_DIR")
		if dir == "" {
			dir, _ = m.conf.Get("defaults", "undo_dir")
		}
		if dir == "" {
			dir = "/var/lib/e2fsprogs"
		}
		if dir == "none" {
			return nil, nil
		}
		if st, err := os.Stat(dir); m.undo == nil && (err != nil || !st.IsDir()) {
			return nil, nil // the configuration asks for one where it is possible
		}
		path = filepath.Join(dir, "mke2fs-"+filepath.Base(m.device)+".e2undo")
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fail("undo file: %w", err)
		}
	}
	// An undo file that is there may be the only copy of something.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fail("undo file: %w", err)
	}
	block := 32 << 10
	if m.opts.BlockSize > 4096 {
		block = m.opts.BlockSize * 8
	}
	u, err := blockdev.NewUndo(dev, f, blockdev.UndoOptions{Block: block, FSBlock: m.opts.BlockSize, Offset: m.target.offset})
	if err != nil {
		f.Close()
		return nil, fail("%w", err)
	}
	fmt.Fprintf(m.Stdout, "Overwriting existing filesystem; this can be undone using the command:\n    e2undo %s %s\n\n",
		cli.Clean(path), cli.Clean(m.device))
	return &undoFile{u, f}, nil
}

// undoFile is the device that saves, and the file that it saves to.
type undoFile struct {
	*blockdev.Undo
	file *os.File
}

// Finish completes and closes the file.
func (u *undoFile) Finish() error {
	err := u.Undo.Finish()
	if e := u.file.Close(); err == nil {
		err = e
	}
	return err
}
