package ext2fs

import (
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/iomap"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// Data of files goes through the journal in mode data=journal, and that of
// single files with the journal-data flag. Its blocks are then as metadata: in
// the buffer cache, and revoked when they are freed.

// opsJData is a block of journaled data.
var opsJData buffer.Ops = plainOps{"journaled data"}

// JournalsData tells whether the file's data goes through the journal; then it
// cannot be read or written on the device.
func (ip *Inode) JournalsData() bool {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.journalsData()
}

// journalsData is JournalsData. mapMu is held.
func (ip *Inode) journalsData() bool {
	if ip.fs.jnl == nil && !ip.fs.readOnly.Load() || !ip.fs.hasJournal || !ip.isReg() {
		return false
	}
	return ip.fs.dataMode == DataJournal || ip.flag(ondisk.FlagJournalData)
}

// setJournalData sets or clears the inode's journal-data flag, after everything
// that is in the journal has been brought home, and forgets the cached copies of
// its data. mu is held exclusively, no handle is open.
func (ip *Inode) setJournalData(on bool) error {
	fs := ip.fs
	h, err := fs.start(creditsInode)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	was := ip.journalsData()
	if on {
		ip.setFlags(ondisk.FlagJournalData, 0)
	} else {
		ip.setFlags(0, ondisk.FlagJournalData)
	}
	now := ip.journalsData()
	err = ip.storeData(h)
	ip.mapMu.Unlock()
	if err = stop(h, err); err != nil || was == now {
		return err
	}
	if err := fs.jnl.Flush(); err != nil {
		return err
	}
	return ip.eachRun(0, 1<<32, func(r run) error {
		if r.state != runHole {
			fs.cache.Forget(buffer.Block(r.pblk), uint64(r.n))
		}
		return nil
	})
}

// eachRun calls f for the runs of blocks [lo, hi), in order, holes too. mapMu is
// not held.
func (ip *Inode) eachRun(lo, hi uint64, f func(r run) error) error {
	for hi = min(hi, uint64(ondisk.MaxLblk)+1); lo < hi; {
		ip.mapMu.RLock()
		r, err := ip.mapRun(ondisk.Lblk(lo), uint32(min(hi-lo, 1<<31)))
		ip.mapMu.RUnlock()
		if err == nil {
			err = f(r)
		}
		if err != nil {
			return err
		}
		lo += uint64(r.n)
	}
	return nil
}

// journalRead reads journaled data, of which the caller knows that it is inside
// the file.
func (ip *Inode) journalRead(p []byte, off int64) (int, error) {
	fs := ip.fs
	for done := 0; done < len(p); {
		pos := off + int64(done)
		in := int(pos & int64(fs.blockSize-1))
		q := p[done:min(len(p), done+fs.blockSize-in)]
		ip.mapMu.RLock()
		r, err := ip.mapRun(ondisk.Lblk(pos>>fs.blockBits), 1)
		if err != nil {
			ip.mapMu.RUnlock()
			return done, err
		}
		if r.state != runWritten {
			clear(q)
		} else {
			// Under mapMu, since writers of the block hold it.
			b, err := fs.cache.Read(buffer.Block(r.pblk), opsJData, ip.ctx())
			if err != nil {
				ip.mapMu.RUnlock()
				return done, err
			}
			copy(q, b.Data()[in:])
			b.Put()
		}
		ip.mapMu.RUnlock()
		done += len(q)
	}
	return len(p), nil
}

// journalChunk is how many blocks of data one handle takes.
const journalChunk = 32

// journalWrite writes p at off by transactions, each of which has the data, its
// mapping, and the size. mu is held exclusively.
func (ip *Inode) journalWrite(p []byte, off int64, rsvOK bool) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, journalChunk<<ip.fs.blockBits)
		k, err := ip.journalSome(p[done:done+n], off+int64(done), rsvOK)
		done += k
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (ip *Inode) journalSome(p []byte, off int64, rsvOK bool) (int, error) {
	fs := ip.fs
	h, err := fs.start(creditsData + journalChunk + 1)
	if err != nil {
		return 0, err
	}
	done := 0
	ip.mapMu.Lock()
	for done < len(p) && err == nil {
		if !fs.have(h, creditsData+1) {
			break // the rest in another transaction
		}
		pos := off + int64(done)
		in := int(pos & int64(fs.blockSize-1))
		n := min(len(p)-done, fs.blockSize-in)
		if err = ip.journalBlock(h, ondisk.Lblk(pos>>fs.blockBits), in, p[done:done+n], rsvOK); err == nil {
			done += n
			err = ip.grow(h, pos+int64(n))
		}
	}
	if done > 0 {
		now := fs.now()
		ip.raw.SetMtime(now)
		ip.raw.SetCtime(now)
	}
	if e := ip.storeData(h); err == nil {
		err = e
	}
	ip.mapMu.Unlock()
	return done, stop(h, err)
}

// journalBlock writes p at byte in of block lblk, which is allocated if it is a
// hole. mapMu is held exclusively.
func (ip *Inode) journalBlock(h *jbd2.Handle, lblk ondisk.Lblk, in int, p []byte, rsvOK bool) error {
	fs := ip.fs
	r, err := ip.mapRun(lblk, 1)
	if err != nil {
		return err
	}
	var b *buffer.Buf
	switch r.state {
	case runHole:
		b, err = ip.journalHole(h, lblk, rsvOK)
	case runUnwritten:
		if b, err = ip.fresh(h, r.pblk); err == nil {
			if _, err = ip.extConvert(h, uint64(lblk), uint64(lblk)+1, false); err != nil {
				b.Put()
			}
		}
	default:
		if b, err = fs.cache.Read(buffer.Block(r.pblk), opsJData, ip.ctx()); err == nil {
			if err = h.GetWrite(b); err != nil {
				b.Put()
			}
		}
	}
	if err != nil {
		return err
	}
	copy(b.Data()[in:], p)
	h.Dirty(b)
	b.Put()
	return nil
}

// fresh returns block pblk as zeroed, journaled data, pinned.
func (ip *Inode) fresh(h *jbd2.Handle, pblk ondisk.Fsblk) (*buffer.Buf, error) {
	b, err := ip.fs.cache.New(buffer.Block(pblk), opsJData, ip.ctx())
	if err != nil {
		return nil, err
	}
	if err := h.GetCreate(b); err != nil {
		b.Put()
		return nil, err
	}
	clear(b.Data())
	return b, nil
}

// journalHole allocates lblk, a hole, in h.
func (ip *Inode) journalHole(h *jbd2.Handle, lblk ondisk.Lblk, rsvOK bool) (*buffer.Buf, error) {
	r, err := ip.mapRun(lblk, 0)
	if err != nil {
		return nil, err
	}
	var op iomap.Op
	if rsvOK {
		op = Privileged
	}
	c, err := ip.claim(op, lblk, 1, r.n, false)
	if err != nil {
		return nil, err
	}
	b, err := ip.fresh(h, c.pblk)
	if err != nil {
		return nil, err
	}
	// It may be reserved, or implied by its cluster: land knows.
	if _, err := ip.land(h, uint64(lblk), uint64(lblk)+1); err != nil {
		b.Put()
		return nil, err
	}
	return b, nil
}

// journalZero zeroes written blocks of [off, off+n), in transactions. mu is held
// exclusively.
func (ip *Inode) journalZero(off, n int64) error {
	fs := ip.fs
	end := off + n
	lo, hi := uint64(off)>>fs.blockBits, fs.blocksOf(end)
	return ip.eachRun(lo, hi, func(r run) error {
		if r.state != runWritten {
			return nil
		}
		for l := uint64(r.lblk); l < uint64(r.lblk)+uint64(r.n); l++ {
			a := max(int64(l<<fs.blockBits), off)
			b := min(int64((l+1)<<fs.blockBits), end)
			h, err := fs.start(1)
			if err != nil {
				return err
			}
			ip.mapMu.Lock()
			in := int(a & int64(fs.blockSize-1))
			buf, err := fs.cache.Read(buffer.Block(uint64(r.pblk)+l-uint64(r.lblk)), opsJData, ip.ctx())
			if err == nil {
				if err = h.GetWrite(buf); err == nil {
					clear(buf.Data()[in : in+int(b-a)])
					h.Dirty(buf)
				}
				buf.Put()
			}
			ip.dataSyncTid.Store(uint32(h.Tid()))
			ip.syncTid.Store(uint32(h.Tid()))
			ip.mapMu.Unlock()
			if err = stop(h, err); err != nil {
				return err
			}
		}
		return nil
	})
}
