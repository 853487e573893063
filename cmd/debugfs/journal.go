package main

import (
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	const write = needFS | needWrite
	register(groupJournal,
		request{names: []string{"journal_run", "jr"}, help: "replay the journal", needs: write, run: journalRun},
	)
}

// journalRun has the file system opened, which replays the journal, and closed.
func journalRun(s *session, _ *args) error {
	if s.journal != nil {
		return errors.New("the journal is open: close it by journal_close first")
	}
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	if !r.Super().HasIncompat(ondisk.IncompatRecover) {
		return nil
	}
	if err := r.Close(false); err != nil {
		return err
	}
	s.raw = nil
	fs, err := ext2fs.Open(s.dev, ext2fs.Options{Populating: true, Now: s.now})
	if err == nil {
		if ro, why := fs.ReadOnly(); ro {
			err = fmt.Errorf("the journal is not replayed: %s", why)
		}
		err = firstError(err, fs.Close())
	}
	return firstError(err, s.openRaw())
}

// journalSession is what journal_open opens.
type journalSession struct{}

func (j *journalSession) close() error { return nil }
