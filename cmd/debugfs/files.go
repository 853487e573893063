package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFiles,
		request{names: []string{"cat"}, args: "file", help: "print a file", needs: needFS, min: 1, max: 1, run: cat},
		request{names: []string{"dump_inode", "dump"}, args: "[-p] file output", help: "copy a file out; -p: owner, mode and times too",
			needs: needFS, min: 2, max: 2, opts: options("p"), run: dump},
	)
}

func cat(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	f, err := r.FileOf(ino, raw)
	if err != nil {
		return err
	}
	return copyData(s.out, f, s.interrupted)
}

// copyChunk is how much of a file is moved at a time, in bytes.
const copyChunk = 1 << 20

// errInterrupted ends a command that the user has stopped.
var errInterrupted = errors.New("interrupted")

// copyData writes the content of f.
func copyData(w io.Writer, f *ext2fs.RawFile, stop func() bool) error {
	buf := make([]byte, min(copyChunk, f.Size()))
	for off := int64(0); off < f.Size(); {
		if stop() {
			return errInterrupted
		}
		n, err := f.ReadAt(buf, off)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("at byte %d: %w", off+int64(n), err)
		}
		off += int64(n)
	}
	return nil
}

// copySparse writes the content of f to a new file, and leaves its holes holes.
func copySparse(w *os.File, f *ext2fs.RawFile, stop func() bool) error {
	if f.Inline() {
		return copyData(w, f, stop)
	}
	buf := make([]byte, min(copyChunk, f.Size()))
	for off := int64(0); off < f.Size(); {
		if stop() {
			return errInterrupted
		}
		data, n, err := f.Segment(off)
		if err != nil {
			return fmt.Errorf("at byte %d: %w", off, err)
		}
		if !data {
			off += n
			continue
		}
		p := buf[:min(int64(len(buf)), n)]
		if _, err := f.ReadAt(p, off); err != nil && err != io.EOF {
			return fmt.Errorf("at byte %d: %w", off, err)
		}
		if _, err := w.WriteAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return w.Truncate(f.Size())
}

func dump(s *session, a *args) error {
	r, ino, raw, err := s.load(a.word(0))
	if err != nil {
		return err
	}
	f, err := r.FileOf(ino, raw)
	if err != nil {
		return err
	}
	out := a.word(1)
	w, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	if st, e := w.Stat(); e == nil && st.Mode().IsRegular() {
		err = copySparse(w, f, s.interrupted)
	} else {
		err = copyData(w, f, s.interrupted)
	}
	if a.has("p") {
		err = firstError(err, keepAttrs(w, raw))
	}
	return firstError(err, w.Close())
}

// keepAttrs gives a file out there owner, mode and times of an inode.
func keepAttrs(w *os.File, raw ondisk.RawInode) error {
	err := w.Chown(int(raw.UID()), int(raw.GID()))
	return firstError(err, w.Chmod(fileMode(raw.Base().Mode.Get())),
		os.Chtimes(w.Name(), goTime(raw.Atime()), goTime(raw.Mtime())))
}
