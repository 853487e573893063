// Package jbd2 is the journal: transactions over the metadata blocks of a
// [buffer.Cache], their log on disk, and its recovery. It knows blocks, but not
// what is in them.
//
// A block's bytes change only while their changer has a [Handle] open, between
// [Handle.GetWrite] and [Handle.Stop]:
//
//	h, err := j.Start(2) // at most two blocks will change
//	if err != nil {
//		return err
//	}
//	defer h.Stop()
//	if err := h.GetWrite(b); err != nil {
//		return err
//	}
//	b.Data()[0]++
//	h.Dirty(b)
//
// All handles between two commits share one transaction, [Tx]. A commit locks
// it (its handles finish, new ones wait), lets the owner add to it
// ([Config.Precommit]), copies its blocks, sealing the copies, and lets new
// handles into the next transaction; then it writes the copies to the log. So
// what is logged is a state between operations, and nobody waits for the
// device who does not ask to. Committed blocks are written home later, by
// checkpoints, which free the log.
//
//	running --lock, copy--> committing --log durable--> committed --home--> gone
//
// A journal from [OpenNone] has no log: a commit writes the copies home.
//
// Locking, outermost first: Journal.cpMu, Journal.homeMu, Journal.sbMu,
// Journal.mu, the buffer's JournalHead, Tx.mu. None is held while a function of
// Config runs, but for Map, MapRun and Now, which do not call the journal.
package jbd2
