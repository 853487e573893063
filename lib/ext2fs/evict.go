package ext2fs

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// evict frees ip, which has no name, no pin and no hold, with all its blocks,
// in transactions of its own. A failure leaves it to the orphan list, that is
// to the next mount.
func (fs *FS) evict(ip *Inode) {
	ip.releaseMap()
	if err := fs.evictInode(ip); err != nil {
		fs.log.Error("an unlinked inode could not be freed", "inode", ip.ino, "err", fs.corrupt(ip.ino, err))
	}
	if !ip.isEA.Load() { // one that holds a value has none itself
		fs.putDead()
	}
}

func (fs *FS) evictInode(ip *Inode) error {
	if ip.ino < fs.firstIno {
		return fmt.Errorf("inode %d is reserved: %w", ip.ino, ondisk.EUCLEAN)
	}
	if !fs.isOrphan(ip.ino) {
		// It never had a name, or lost it where only one transaction was meant;
		// more than one may be needed now.
		h, err := fs.start(creditsOrphan + creditsInode)
		if err != nil {
			return err
		}
		ip.mapMu.Lock()
		err = ip.store(h)
		ip.mapMu.Unlock()
		if err == nil {
			err = fs.orphanAdd(h, ip)
		}
		if e := h.Stop(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	}
	if err := ip.freeAllBlocks(); err != nil {
		return fmt.Errorf("blocks: %w", err)
	}
	h, err := fs.start(ip.xattrFreeCredits() + creditsOrphan + creditsIfree + creditsInode)
	if err != nil {
		return err
	}
	defer h.Stop()
	if err := ip.xattrFreeAll(h); err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	if err := fs.orphanDel(h, ip); err != nil {
		return err
	}
	return fs.ifree(h, ip)
}
