package ext2fs

import (
	"math"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Bmap returns the block of the device that block n of the file lies in, 0 for
// a hole, as FIBMAP reports it. An inline file has none.
func (ip *Inode) Bmap(n uint64) (ondisk.Fsblk, error) {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	if n >= math.MaxUint32 || ip.flag(ondisk.FlagInlineData) {
		return 0, nil
	}
	r, err := ip.mapRun(ondisk.Lblk(n), 1)
	if err != nil || r.state != runWritten {
		return 0, ip.fs.corrupt(ip.ino, err)
	}
	return r.pblk, nil
}
