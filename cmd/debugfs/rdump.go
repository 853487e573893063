package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/extract"
)

func init() {
	register(groupFiles, request{names: []string{"rdump"}, args: "file... destination",
		help:  "copy trees out with all that files have: to a directory, or to a tar archive (NAME.tar, or - for standard output)",
		needs: needFS, min: 2, max: -1, run: rdump})
}

// rdump goes on where something cannot be copied, and fails at the end.
func rdump(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	n := len(a.words) - 1
	dest := a.words[n]
	var roots []extract.Root
	for _, w := range a.words[:n] {
		ino, err := s.inode(w)
		if err != nil {
			return err
		}
		root := extract.Root{Ino: ino, Name: path.Base(path.Clean("/" + w))}
		if ino == s.root || root.Name == "/" || strings.HasPrefix(w, "<") {
			root.Name = "" // what is in it: it has no name of its own
			mode, err := r.Mode(ino)
			if err != nil {
				return err
			}
			if mode&ondisk.ModeFmt != ondisk.ModeDir {
				root.Name = strings.Trim(w, "<>")
			}
		}
		roots = append(roots, root)
	}
	bad := 0
	o := extract.Options{Stop: s.interrupted, Warn: func(path string, err error) {
		bad++
		s.warn(a.name, fmt.Errorf("%s: %w", path, err))
	}}
	switch {
	case dest == "-":
		s.out.Flush()
		err = extract.Tar(r, roots, s.out, o)
	case strings.HasSuffix(dest, ".tar"):
		err = tarFile(dest, func(w *bufio.Writer) error { return extract.Tar(r, roots, w, o) })
	default:
		err = extract.Dir(r, roots, dest, o)
	}
	if err == nil && bad > 0 {
		err = errors.New("not everything was copied")
	}
	return err
}

func tarFile(name string, write func(w *bufio.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	return firstError(write(w), w.Flush(), f.Close())
}
