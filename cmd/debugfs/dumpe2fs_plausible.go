package main

import (
	"fmt"
	"io"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// plausible says what a device holds where a superblock was looked for that it
// does not have: a file system all the same, if another superblock was asked
// for.
func (d *dumper) plausible(w io.Writer, dev blockdev.Device) {
	b := make([]byte, ondisk.SuperSize)
	if _, err := dev.ReadAt(b, ondisk.SuperOffset); err != nil {
		return // that it cannot be read was told
	}
	s := endian.View[ondisk.Super](b)
	if s.Magic.Get() != ondisk.SuperMagic {
		return
	}
	label := ""
	if l := e2p.Text(s.VolumeName[:]); l != "" {
		label = fmt.Sprintf(" labelled '%s'", e2p.Clean(l))
	}
	fmt.Fprintf(w, "%s contains a %s file system%s\n", d.device, kindOf(s), label)
	if _, err := ext2fs.OpenSurvey(dev, ext2fs.SurveyOptions{}); err != nil || s.FeatureIncompat.Get()&ondisk.IncompatJournalDev != 0 {
		return
	}
	on := ""
	if m := e2p.Text(s.LastMounted[:]); m != "" {
		on = e2p.Clean(m) + " on "
	}
	for _, t := range []struct {
		what string
		lo   uint32
		hi   [1]byte
	}{
		{"last mounted on " + on, s.Mtime.Get(), s.MtimeHi}, {"created on ", s.MkfsTime.Get(), s.MkfsTimeHi},
		{"last modified on ", s.Wtime.Get(), s.WtimeHi},
	} {
		if sec := int64(t.hi[0])<<32 | int64(t.lo); sec != 0 {
			fmt.Fprintf(w, "\t%s%s\n", t.what, e2p.Ctime(sec, d.names.Location))
			return
		}
	}
}

// kindOf returns what a file system is called by its features.
func kindOf(s *ondisk.Super) string {
	const (
		incompat2 = ondisk.IncompatFiletype | ondisk.IncompatMetaBG
		incompat3 = incompat2 | ondisk.IncompatRecover
		roCompat  = ondisk.ROCompatSparseSuper | ondisk.ROCompatLargeFile | ondisk.ROCompatBtreeDir
	)
	incompat := s.FeatureIncompat.Get()
	switch {
	case incompat&ondisk.IncompatJournalDev != 0:
		return "jbd"
	case incompat&^incompat3 != 0 || s.FeatureROCompat.Get()&^roCompat != 0:
		return "ext4"
	case s.FeatureCompat.Get()&ondisk.CompatHasJournal != 0:
		return "ext3"
	}
	return "ext2"
}
