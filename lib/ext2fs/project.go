package ext2fs

import (
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// Projects. An inode has a project id; what is made in a directory with the
// project-inherit flag gets that of the directory, and nothing of another
// project can be linked or moved there. Limits for projects are quota's.

// project returns the inode's project id and whether it hands it on.
func (ip *Inode) project() (id uint32, inherit bool) {
	ip.mapMu.RLock()
	defer ip.mapMu.RUnlock()
	return ip.raw.Projid(), ip.flag(ondisk.FlagProjinherit)
}

// sameProject fails with EXDEV if ip may not get a name in the directory dp.
func (dp *Inode) sameProject(ip *Inode) error {
	want, inherit := dp.project()
	if id, _ := ip.project(); inherit && id != want {
		return syscall.EXDEV
	}
	return nil
}

// inheritProject gives the fresh inode ip the project of its directory.
func (ip *Inode) inheritProject(dp *Inode) {
	if !ip.fs.hasProject {
		return
	}
	if id, inherit := dp.project(); inherit {
		ip.raw.SetProjid(id)
	}
}

// maySetProject says whether the inode's project id can become id. mapMu is
// held.
func (ip *Inode) maySetProject(id uint32) error {
	switch {
	case id == ip.raw.Projid():
		return nil
	case !ip.fs.hasProject, ip.fs.inodeSize <= ondisk.GoodOldInodeSz:
		return syscall.EOPNOTSUPP
	case ip.flag(ondisk.FlagImmutable):
		return syscall.EPERM
	}
	return nil
}

// setProject stores the project id, for which the attributes of an old inode may
// have to move. mapMu is held exclusively; the caller stores the inode.
func (ip *Inode) setProject(id uint32) error {
	if id == ip.raw.Projid() {
		return nil
	}
	ip.expandExtra()
	if !ip.raw.SetProjid(id) {
		return syscall.ENOSPC
	}
	return nil
}
