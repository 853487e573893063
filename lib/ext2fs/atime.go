package ext2fs

import "github.com/e2kit/e2kit/lib/ext2fs/ondisk"

// AtimeMode says when reading changes the time of access.
type AtimeMode int

const (
	AtimeRelative AtimeMode = iota // if it is not after the last change, or a day old
	AtimeNever
	AtimeStrict // always
)

// Accessed records that the content was read. It changes nothing, and does not
// fail, where nothing can be written, the inode's noatime flag is set, or the file
// system is frozen: it can be read then, and who does must not wait.
func (ip *Inode) Accessed(mode AtimeMode) error {
	const day = 24 * 60 * 60
	if mode == AtimeNever || ip.fs.writable() != nil {
		return nil
	}
	now := ip.fs.now()
	ip.mapMu.RLock()
	a, c, m := ip.raw.Atime(), ip.raw.Ctime(), ip.raw.Mtime()
	skip := ip.flag(ondisk.FlagNoatime | ondisk.FlagImmutable)
	ip.mapMu.RUnlock()
	if skip || mode == AtimeRelative && m.Before(a) && c.Before(a) && now.Sec-a.Sec < day {
		return nil
	}
	h, err := ip.fs.startNow(creditsInode)
	if h == nil {
		return err
	}
	ip.mapMu.Lock()
	ip.raw.SetAtime(now)
	err = ip.store(h)
	ip.mapMu.Unlock()
	return stop(h, err)
}
