//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/ext2fs"
)

// A wantedJournal is an external journal that the server was not given.
type wantedJournal struct {
	UUID [16]byte
	Dev  uint32 // where it was last, as Linux encodes device numbers in 32 bits; 0 if not known
}

// wanted returns what a file system that could not be opened lacks; nil if it
// is not its journal.
func wanted(err error) *wantedJournal {
	var e *ext2fs.JournalDevError
	if !errors.As(err, &e) {
		return nil
	}
	return &wantedJournal{UUID: e.UUID, Dev: e.Dev}
}

// startWithJournal is startServer. If the server finds that the file system's
// journal is on another device, which was not named, that is looked for, and
// the server started again: it cannot open anything itself.
func (l *launcher) startWithJournal() ([]string, error) {
	warn, err := l.startServer()
	if err == nil || l.wanted == nil || l.o.JournalPath != "" {
		return warn, err
	}
	path, ferr := l.wanted.find()
	if ferr != nil {
		return nil, fails(exitOpen, "%w, %w; name it with -o journal_path=PATH", err, ferr)
	}
	l.endServer()
	l.o.JournalPath = path
	if l.jnl, err = l.open(path, true); err != nil {
		return nil, err
	}
	return l.startServer()
}

// find returns the path of the block device that is the journal: the one of the
// number that the file system remembers if that has its UUID, else the only one
// that has it. Of copies of it none is taken.
func (w *wantedJournal) find() (string, error) {
	var hint, other []string
	all, err := filepath.Glob("/sys/class/block/*/dev")
	if err != nil {
		return "", err
	}
	for _, p := range all {
		text, err := os.ReadFile(p)
		var major, minor uint32
		if err != nil {
			continue
		}
		if n, _ := fmt.Sscanf(string(text), "%d:%d", &major, &minor); n != 2 {
			continue
		}
		// The kernel's name for a folder of /dev is an exclamation mark.
		name := "/dev/" + strings.ReplaceAll(filepath.Base(filepath.Dir(p)), "!", "/")
		if w.Dev != 0 && major == w.Dev>>8&0xfff && minor == w.Dev&0xff|w.Dev>>12&0xfff00 {
			hint = append(hint, name)
		} else {
			other = append(other, name)
		}
	}
	denied := false
	for _, names := range [][]string{hint, other} {
		var found []string
		for _, name := range names {
			is, err := w.is(name)
			if is {
				found = append(found, name)
			}
			denied = denied || errors.Is(err, os.ErrPermission)
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return "", fmt.Errorf("which each of %s is", strings.Join(found, ", "))
		}
	}
	if denied {
		return "", errors.New("which was not found among the block devices that can be read here")
	}
	return "", errors.New("which no block device here is")
}

// is tells whether the device is a journal of the UUID. More of it is not
// looked at here: that is for the server.
func (w *wantedJournal) is(name string) (bool, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a drive may have no medium
	if err != nil {
		return false, err
	}
	defer f.Close()
	const (
		super, size                 = 1024, 1024
		magicAt, incompatAt, uuidAt = 56, 96, 104
		magic, journalDev           = 0xef53, 8
	)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, super); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return false, err
	}
	le := binary.LittleEndian
	return le.Uint16(b[magicAt:]) == magic && le.Uint32(b[incompatAt:])&journalDev != 0 &&
		bytes.Equal(b[uuidAt:][:16], w.UUID[:]), nil
}
