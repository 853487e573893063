package ext2fs

import (
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// MMP returns a copy of the block of multiple mount protection as it is now.
// With ReasonMMPCsum and ReasonMMPMagic what was read is returned too.
func (v *Survey) MMP() (*ondisk.MMP, error) {
	blk := v.super.MMPBlock.Get()
	if blk <= v.first || blk >= v.blocks {
		return nil, surveyErr(ReasonMMPBlock, "the block of multiple mount protection is at %d of %d", blk, v.blocks)
	}
	b := make([]byte, v.blockSize) // past the cache: another host may write it
	if blk > uint64(1)<<62/uint64(v.blockSize) {
		return nil, surveyErr(ReasonShort, "mmp block at block %d: the device ends before", blk)
	}
	if err := v.read("mmp block", b, int64(blk)*int64(v.blockSize)); err != nil {
		return nil, err
	}
	m := endian.View[ondisk.MMP](b)
	if x := m.Magic.Get(); x != ondisk.MMPMagic {
		return m, surveyErr(ReasonMMPMagic, "block %d has the magic number %#x: no multiple mount protection", blk, x)
	}
	csum := v.hasRO(ondisk.ROCompatMetadataCsum) && !v.ignoreCsum.Load()
	if err := m.Verify(v.seed, csum); err != nil {
		return m, surveyErr(ReasonMMPCsum, "%v in block %d", err, blk)
	}
	return m, nil
}
