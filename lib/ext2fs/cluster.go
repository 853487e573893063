package ext2fs

import (
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// wholeClusters says whether clusters are mapped as a whole: what is not written is
// unwritten. A cluster is freed with the last block of it that is mapped. Where the
// kernel moves the data, a block of a cluster may be on its way to the device
// while the only one that is mapped is punched, or cut off.
func (ip *Inode) wholeClusters() bool { return ip.fs.kernelIO.On && ip.fs.clusterRatio > 1 }

// insertReserved maps n blocks from lblk on to pblk, which are reserved for them,
// and makes them the file's. It tells how many it has mapped. mapMu is held
// exclusively; the caller stores the inode.
func (ip *Inode) insertReserved(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32, unwritten bool) (uint32, error) {
	n, err := ip.insertSome(h, lblk, pblk, n, unwritten)
	if n > 0 {
		if e := ip.rsvCommit(h, lblk, pblk, n); e != nil {
			return 0, e
		}
	}
	return n, err
}

// insertClusters is insertReserved for all blocks of the clusters that the n lie
// in, as unwritten ones. None of them is mapped, or they would not be reserved. The
// others are busy: they may have been handed out, or the kernel believes in a hole
// there.
func (ip *Inode) insertClusters(h *jbd2.Handle, lblk ondisk.Lblk, pblk ondisk.Fsblk, n uint32) error {
	first, end := uint64(lblk), uint64(lblk)+uint64(n)
	lo, hi := ip.clusters(first, end)
	for _, s := range [...]span{{lo, first}, {end, hi}} {
		if s.lo < s.hi {
			ip.busyAdd(s.lo, s.hi)
		}
	}
	_, err := ip.insertReserved(h, ondisk.Lblk(lo), pblk-ondisk.Fsblk(first-lo), uint32(hi-lo), true)
	return err
}

// clusters returns the blocks of the clusters that [lo, hi) lies in.
func (ip *Inode) clusters(lo, hi uint64) (uint64, uint64) {
	mask := uint64(ip.fs.clusterRatio - 1)
	return lo &^ mask, min((hi+mask)&^mask, uint64(ondisk.MaxLblk)+1)
}

// mapImplied maps, as unwritten and busy, the rest of the cluster of lblk, of which
// another block is mapped. Nothing happens if there is none any more. No lock is held.
func (ip *Inode) mapImplied(lblk ondisk.Lblk) error {
	h, err := ip.fs.start(creditsData)
	if err != nil {
		return err
	}
	ip.mapMu.Lock()
	lo, hi := ip.clusters(uint64(lblk), uint64(lblk)+1)
	for err == nil && lo < hi {
		if !ip.fs.have(h, creditsData) {
			break // what is left is asked for again
		}
		var r run
		if r, err = ip.mapRun(ondisk.Lblk(lo), uint32(hi-lo)); err != nil || r.state != runHole {
			lo += uint64(r.n)
			continue
		}
		var c run
		if c, err = ip.implied(r.lblk); err != nil || c.n == 0 {
			break
		}
		ip.busyAdd(uint64(r.lblk), uint64(r.lblk)+uint64(min(r.n, c.n)))
		var n uint32
		n, err = ip.insertSome(h, r.lblk, c.pblk, min(r.n, c.n), true)
		lo += uint64(n)
	}
	if e := ip.storeData(h); err == nil {
		err = e
	}
	ip.mapMu.Unlock()
	return stop(h, err)
}
