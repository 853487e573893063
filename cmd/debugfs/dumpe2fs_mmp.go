package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// sleep is time.Sleep, but for tests.
var sleep = time.Sleep

const mmpMinInterval = 5 // seconds

// mmpStatus tells whether another host has the file system in use, and returns
// the exit status.
func (d *dumper) mmpStatus() int {
	s := d.v.Super()
	if s.FeatureIncompat.Get()&ondisk.IncompatMMP == 0 || s.MMPBlock.Get() == 0 {
		d.warn(fmt.Errorf("%s: it has no multiple mount protection: whether it is in use cannot be told", d.device))
		return statusUnknown
	}
	if d.Bool("i") {
		d.mmpBlock()
		number := fmt.Sprint(s.MMPBlock.Get())
		if d.list.Hex {
			number = fmt.Sprintf("0x%04x", s.MMPBlock.Get())
			if s.FeatureIncompat.Get()&ondisk.Incompat64Bit != 0 {
				number = fmt.Sprintf("0x%08x", s.MMPBlock.Get())
			}
		}
		fmt.Fprintf(d.out, "    mmp_block_number: %s\n", number)
	} else if status := d.mmpCheck(); status != 0 {
		return status
	}
	if d.damage != nil {
		return statusUnknown
	}
	return 0
}

// mmpBlock lists the block. What is wrong with it is told, and no more: this is
// a listing.
func (d *dumper) mmpBlock() {
	m, err := d.v.MMP()
	if err != nil {
		d.warn(fmt.Errorf("%s: %w", d.device, err))
		return
	}
	e2p.ListMMP(d.out, m, d.names.Location) // its error stays in out
}

// mmpCheck waits, if need be, to see whether another host keeps the block
// moving.
func (d *dumper) mmpCheck() int {
	m, err := d.v.MMP()
	var e *ext2fs.SurveyError
	switch {
	case err == nil:
	case errors.As(err, &e) && e.Reason == ext2fs.ReasonMMPCsum:
		return d.mmpBusy("MMP block checksum does not match", m)
	default:
		d.warn(fmt.Errorf("%s: %w", d.device, err))
		return statusUnknown
	}
	seq := m.Seq.Get()
	switch {
	case seq == ondisk.MMPSeqClean:
		fmt.Fprintf(d.out, "%s: it is safe to mount '%s', MMP is clean\n", d.Prog, d.device)
		return 0
	case seq == ondisk.MMPSeqFsck:
		return d.mmpBusy("MMP: it is being checked", m)
	case seq > ondisk.MMPSeqFsck:
		return d.mmpBusy(fmt.Sprintf("MMP: unknown sequence number %#x", seq), m)
	}
	interval := max(uint32(d.v.Super().MMPInterval.Get()), mmpMinInterval, uint32(m.CheckInterval.Get()))
	d.out.Flush()
	sleep(time.Duration(min(2*interval+1, interval+60)) * time.Second)
	again, err := d.v.MMP()
	if err != nil {
		d.warn(fmt.Errorf("%s: %w", d.device, err))
		return statusUnknown
	}
	if again.Seq.Get() != seq {
		return d.mmpBusy("MMP: it is in use on another host", again)
	}
	fmt.Fprintf(d.out, "%s: it is safe to mount '%s', MMP is clean\n", d.Prog, d.device)
	return 0
}

// mmpBusy tells why the file system is not to be mounted, and who was the last
// to have it.
func (d *dumper) mmpBusy(why string, m *ondisk.MMP) int {
	d.warn(fmt.Errorf("%s while trying to open %s", why, d.device))
	d.warn(fmt.Errorf("MMP last updated by '%s%s' on %s", e2p.Text(m.NodeName[:]), e2p.Text(m.BdevName[:]),
		e2p.Ctime(int64(m.Time.Get()), d.names.Location)))
	return statusInUse
}
