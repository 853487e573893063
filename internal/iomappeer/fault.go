package iomappeer

import (
	"sync/atomic"
	"syscall"
)

// Faults says what goes wrong, and how often: 0 is never, 1 always.
type Faults struct {
	UpsertFails  float64 // UPSERT fails with ENOMEM, ESTALE or EINVAL
	CacheMisses  float64 // a lookup in the mapping cache finds nothing
	DropEnd      float64 // an END that is due is not sent
	ShortCopy    float64 // a buffered write copies only a part
	NegativeEnd  float64 // an END of a failed step has the errno in written
	Stale        float64 // a mapping is found stale before it was used
	Interrupt    float64 // the caller of a BEGIN is interrupted
	WriteFails   float64 // the device fails a write of data
	ShortWrite   float64 // the device writes only a part of a direct write
	ReadFails    float64 // the device fails a read of data
	DupIOEnd     float64 // an IOEND is sent twice
	WantEnd      float64 // END follows though nothing asks for it
	MergeIOEnd   float64 // IOENDs of neighbours go as one, though their mappings differ
	EndWriteback bool    // END follows a BEGIN(WRITEBACK)
	PerFolio     float64 // writeback asks again for the next folio

	// ConfigBits are bits of the future that CONFIG offers.
	ConfigBits uint64

	// Off turns all of them off while it is set.
	Off atomic.Bool
}

func (k *Kernel) fault(p float64) bool { return !k.cfg.Faults.Off.Load() && k.chance(p) }

// upsertFault returns the errno that an UPSERT fails with, or 0.
func (k *Kernel) upsertFault() syscall.Errno {
	if !k.fault(k.cfg.Faults.UpsertFails) {
		return 0
	}
	return []syscall.Errno{syscall.ENOMEM, syscall.ESTALE, syscall.EINVAL}[k.intn(3)]
}
