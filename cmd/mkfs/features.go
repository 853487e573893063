package main

import (
	"fmt"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/mkfsconf"
)

// settable are the features that a new file system can have.
var settable = e2p.Features{
	e2p.Compat: ondisk.CompatHasJournal | ondisk.CompatExtAttr | ondisk.CompatResizeInode | ondisk.CompatDirIndex |
		ondisk.CompatSparseSuper2 | ondisk.CompatFastCommit | ondisk.CompatStableInodes | ondisk.CompatOrphanFile,
	e2p.Incompat: ondisk.IncompatFiletype | ondisk.IncompatJournalDev | ondisk.IncompatMetaBG | ondisk.IncompatExtents |
		ondisk.Incompat64Bit | ondisk.IncompatMMP | ondisk.IncompatFlexBG | ondisk.IncompatEAInode | ondisk.IncompatCsumSeed |
		ondisk.IncompatLargeDir | ondisk.IncompatInlineData | ondisk.IncompatEncrypt | ondisk.IncompatCasefold,
	e2p.ROCompat: ondisk.ROCompatSparseSuper | ondisk.ROCompatLargeFile | ondisk.ROCompatHugeFile | ondisk.ROCompatGDTCsum |
		ondisk.ROCompatDirNlink | ondisk.ROCompatExtraIsize | ondisk.ROCompatQuota | ondisk.ROCompatBigalloc |
		ondisk.ROCompatMetadataCsum | ondisk.ROCompatProject | ondisk.ROCompatVerity,
}

// notHurd are the features that the GNU Hurd does not read.
var notHurd = e2p.Features{
	e2p.Incompat: ondisk.IncompatFiletype | ondisk.IncompatEAInode | ondisk.IncompatCasefold,
	e2p.ROCompat: ondisk.ROCompatHugeFile | ondisk.ROCompatMetadataCsum,
}

func sizeType(size uint64) string { return mkfsconf.SizeType(size) }

// resolveFeatures applies the features of the configuration, then those asked for.
func (m *maker) resolveFeatures() error {
	var f e2p.Features
	edit := func(from, list string) error {
		if err := e2p.EditFeatures(list, &f, &settable, &settable); err != nil {
			return cli.Usagef("%s: %v (--help=features lists them)", from, err)
		}
		return nil
	}
	base := m.types.String("base_features", "sparse_super,large_file,filetype,resize_inode,dir_index")
	if err := edit("base_features", base); err != nil {
		return err
	}
	for _, list := range m.types.Each("features") {
		if err := edit("features", list); err != nil {
			return err
		}
	}
	hurd := m.opts.CreatorOS == ondisk.OSHurd
	if hurd {
		for i := range f {
			f[i] &^= notHurd[i]
		}
	}
	list := m.types.String("default_features", "")
	if m.features != nil {
		list = *m.features
	}
	if err := edit("-O", list); err != nil {
		return err
	}
	if hurd {
		for i := range f {
			if bad := f[i] & notHurd[i]; bad != 0 {
				return fail("the Hurd does not support the feature %s", e2p.FeatureName(e2p.Class(i), bad))
			}
		}
	}
	if m.journal {
		f[e2p.Compat] |= ondisk.CompatHasJournal
	}
	o := &m.opts
	if m.encoding != "" {
		f[e2p.Incompat] |= ondisk.IncompatCasefold
	}
	if m.extended.quotaTypes&ext2fs.QuotaProject != 0 { // to count by project takes ids of projects
		f[e2p.ROCompat] |= ondisk.ROCompatProject
	}
	if f[e2p.Incompat]&ondisk.IncompatJournalDev != 0 {
		f[e2p.Compat], f[e2p.Incompat] = 0, ondisk.IncompatJournalDev
		f[e2p.ROCompat] &= ondisk.ROCompatMetadataCsum
	}
	rev0 := m.request.revision == 0 || m.extended.revision == 0
	if rev0 {
		f, o.Revision0 = e2p.Features{}, true
	}
	if f[e2p.ROCompat]&ondisk.ROCompatMetadataCsum != 0 {
		f[e2p.ROCompat] &^= ondisk.ROCompatGDTCsum
	}
	o.Compat, o.Incompat, o.ROCompat = f[e2p.Compat], f[e2p.Incompat], f[e2p.ROCompat]
	return nil
}

// checkRequest refuses features that need others, and tells of bad choices.
func (m *maker) checkRequest() error {
	o := &m.opts
	if o.Incompat&ondisk.IncompatJournalDev != 0 {
		if m.fills() || m.auto {
			return fail("an external journal cannot be filled: leave out -d and what goes with it")
		}
		return nil
	}
	csum := o.ROCompat&ondisk.ROCompatMetadataCsum != 0
	switch {
	case o.Incompat&ondisk.Incompat64Bit != 0 && o.Incompat&ondisk.IncompatExtents == 0:
		return fail("64bit needs the extent feature: add -O extent, or -O ^64bit")
	case o.ROCompat&ondisk.ROCompatBigalloc != 0 && o.Incompat&ondisk.IncompatExtents == 0:
		return fail("bigalloc needs the extent feature: add -O extent")
	case o.Compat&ondisk.CompatResizeInode != 0 && o.ROCompat&ondisk.ROCompatSparseSuper == 0 &&
		o.Compat&ondisk.CompatSparseSuper2 == 0:
		return fail("resize_inode needs the sparse_super feature: add -O ^resize_inode")
	case o.Compat&ondisk.CompatResizeInode != 0 && o.Incompat&ondisk.IncompatMetaBG != 0:
		return fail("resize_inode and meta_bg exclude each other: add -O ^resize_inode")
	case o.Incompat&ondisk.IncompatCsumSeed != 0 && !csum:
		return fail("metadata_csum_seed needs the metadata_csum feature: add -O metadata_csum")
	case o.Compat&ondisk.CompatOrphanFile != 0 && o.Compat&ondisk.CompatHasJournal == 0:
		return fail("orphan_file needs a journal: add -j")
	case o.DescSize != 0 && o.Incompat&ondisk.Incompat64Bit == 0:
		return fail("desc_size needs the 64bit feature")
	case o.CreatorOS == ondisk.OSHurd && o.InodeSize != ondisk.GoodOldInodeSz:
		return fail("the Hurd supports inodes of 128 bytes only: add -I 128")
	}
	if err := m.resolveHugeFiles(); err != nil {
		return err
	}
	if csum && !m.quiet {
		if o.Incompat&ondisk.IncompatExtents == 0 {
			m.Warn(fmt.Errorf("without the extent feature, metadata_csum does not cover block maps"))
		}
		if o.Incompat&ondisk.Incompat64Bit == 0 {
			m.Warn(fmt.Errorf("without the 64bit feature, metadata_csum has 16 bits for bitmaps"))
		}
	}
	return nil
}
