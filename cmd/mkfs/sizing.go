package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/populate"
)

// settleBySource decides what is made, of the size that what it is filled with
// needs: that is read first.
func (m *maker) settleBySource() error {
	if m.target.exists {
		if err := m.checkMounted(m.device, "file system"); err != nil {
			return err
		}
	}
	if err := m.loadSource(); err != nil {
		return err
	}
	if err := m.resolve(); err != nil {
		return err
	}
	if err := m.adopt(); err != nil {
		return err
	}
	if err := m.checkTarget(); err != nil {
		return err
	}
	return m.fit()
}

// adopt brings together what was loaded and what was resolved.
func (m *maker) adopt() error {
	m.setRoot()
	if err := m.derive(); err != nil {
		return err
	}
	m.resolvePeriod()
	return nil
}

// contentSize is about what the contents take: what the usage type goes by.
func (m *maker) contentSize() int64 {
	return max(m.tree.Bytes()+int64(m.tree.Inodes())*256, 1<<20)
}

// raiseInodes gives a file system as many inodes as it is filled with, unless
// their number was asked for.
func (m *maker) raiseInodes() {
	if m.tree == nil || m.inodes != 0 || m.ratio != 0 {
		return
	}
	if need := m.tree.Inodes() + m.ownInodes(); need > uint64(m.opts.Inodes) {
		_ = enoughInodes(&m.opts, int64(m.opts.Blocks)<<m.log, need) // else filling it fails
	}
}

// checkRoom refuses what certainly does not fit, while the device is as it was.
func (m *maker) checkRoom() error {
	if m.tree == nil {
		return nil
	}
	plan, err := m.plan()
	if err != nil {
		return err
	}
	have, need := uint64(plan.Super.InodesCount.Get()), m.tree.Inodes()+uint64(ondisk.GoodOldFirst)-1
	if have < need {
		return fail("%s: no file system made: %s has %d files, for which %d inodes are too few: raise -N, or lower -i",
			m.device, m.filling.name(), m.tree.Inodes()-1, have)
	}
	// Blocks of zeros need no room if they become holes.
	size, holes := int64(m.opts.Blocks)<<m.log, m.reproducible || os.Getenv("SOURCE_DATE_EPOCH") != ""
	if n := m.tree.Bytes(); n > size && !holes {
		return fail("%s: no file system made: %s has %s of data, more than the %s of the file system (--size auto looks for a size that it fits in)",
			m.device, m.filling.name(), humanize.IBytes(uint64(n)), humanize.IBytes(uint64(size)))
	}
	return nil
}

// enoughInodes asks for n inodes, and for more where a format of size bytes would
// round that down: they are counted in whole bytes of a group's bitmap.
func enoughInodes(o *ext2fs.FormatOptions, size int64, n uint64) error {
	const round = 8
	ask := (n + round - 1) &^ (round - 1)
	if ask > math.MaxUint32 {
		return fmt.Errorf("%d inodes are more than a file system can have: %w", n, syscall.EFBIG)
	}
	o.Inodes = uint32(ask)
	r, err := ext2fs.Plan(size, *o)
	if err == nil && uint64(r.Super.InodesCount.Get()) < n {
		o.Inodes = uint32(min(ask+round*uint64(r.Groups), math.MaxUint32))
	}
	return nil // what Plan refuses, Format does
}

// fit finds the size.
func (m *maker) fit() error {
	o := populate.SizeOptions{BlockSize: int(m.blockSize), Smallest: m.shrink}
	limit, what := int64(0), ""
	for _, s := range []struct {
		opt, v string
		to     *int64
	}{{"--free", m.free, &o.Free}, {"--max", m.most, &limit}} {
		if s.v == "" {
			continue
		}
		n, err := parseBlocks(s.v, m.log)
		if err != nil || n > math.MaxInt64>>m.log || n == 0 && s.opt == "--max" {
			return fail("%s %s is not a size (--help=size)", s.opt, s.v)
		}
		if *s.to = int64(n) << m.log; s.opt == "--max" {
			what = "--max " + m.most
		}
	}
	lower := func(n int64, why string) {
		if limit == 0 || n < limit {
			limit, what = n, why
		}
	}
	if m.size != "" {
		lower(int64(m.count)<<m.log, "the size "+m.size)
	}
	switch {
	case m.selector != "":
		lower(m.target.size, "what "+m.device+"#"+m.selector+" has")
	case m.target.block:
		lower(m.target.size, "what "+m.device+" has")
	}
	o.Max = limit
	o.Min = m.smallestFormat(limit)
	p := m.fillProgress
	p.line("Finding the size: ")
	s, err := m.tree.Fit(m.ctx, m.scratch, o)
	if err != nil {
		p.end("")
		if limit > 0 && errors.Is(err, syscall.ENOSPC) {
			return fail("%s: no file system made: %s takes more than %s (%s bytes)",
				m.device, m.filling.name(), what, humanize.Comma(limit))
		}
		return fail("%s: no file system made: the size for %s: %w", m.device, m.filling.name(), elsewhere(err))
	}
	p.end(humanize.IBytes(uint64(s.Bytes)))
	opts, err := m.optionsFor(s.Bytes, s.Inodes)
	if err != nil {
		return err
	}
	m.opts, m.count = opts, opts.Blocks
	return nil
}

// optionsFor returns what is made where the file system has size bytes, and
// inodes of them beside its own.
func (m *maker) optionsFor(size int64, inodes uint64) (ext2fs.FormatOptions, error) {
	o := m.opts
	o.Blocks = uint64(size) >> m.log
	if err := m.resolveWide(&o, o.Blocks); err != nil {
		return o, err
	}
	n := inodes + m.ownInodes()
	switch {
	case m.inodes != 0:
		n = max(n, uint64(m.inodes))
	case m.ratio != 0:
		n = max(n, min(m.inodesFor(o.Blocks), math.MaxUint32))
	case m.free != "":
		free, _ := parseBlocks(m.free, m.log)
		n += m.inodesFor(free)
	}
	return o, enoughInodes(&o, size, n)
}

// planned tells whether size bytes are enough for the file system alone, with
// the journal that it is to have.
func (m *maker) planned(size int64) bool {
	o, err := m.optionsFor(size, 0)
	if err != nil {
		return false
	}
	r, err := ext2fs.Plan(size, o)
	return err == nil && !r.NoJournal
}

// smallestFormat returns the smallest size that the file system can have
// whatever it is filled with: smaller ones have no journal, say. It is 0 if there
// is none up to the limit, for which Fit has the reasons.
func (m *maker) smallestFormat(limit int64) int64 {
	high := int64(64 << 10)
	for ; !m.planned(high); high *= 2 {
		if high > 1<<40 || limit > 0 && high > limit {
			return 0
		}
	}
	low := high / 2
	for high-low > m.blockSize {
		mid := low + (high-low)/2/m.blockSize*m.blockSize
		if m.planned(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// scratch makes a file system to try the size with, in a sparse file without a
// name. It is a populate.Format.
func (m *maker) scratch(size int64, inodes uint64) (blockdev.Device, error) {
	if m.fillProgress.shows {
		m.fillProgress.put("trying " + humanize.IBytes(uint64(size)))
	}
	o, err := m.optionsFor(size, inodes)
	if err != nil {
		return nil, err
	}
	if r, err := ext2fs.Plan(size, o); err != nil {
		return nil, err
	} else if r.NoJournal {
		return nil, fmt.Errorf("no room for a journal: %w", syscall.ENOSPC)
	}
	file, err := os.CreateTemp("", "mke2fs-")
	if err != nil {
		return nil, fmt.Errorf("a file to try the size in: %w", err)
	}
	makeSparse(file)
	err = file.Truncate(size)
	file.Close()
	scratch := &scratchDevice{name: file.Name()}
	if err != nil {
		err = fmt.Errorf("a file of %d bytes to try the size in: %w", size, err)
	} else {
		scratch.Device, err = blockdev.Open(scratch.name, blockdev.Options{Direct: blockdev.DirectOff})
	}
	if os.Remove(scratch.name) == nil {
		scratch.name = ""
	}
	if err != nil {
		return nil, err
	}
	o.Discard, o.AssumeZeroed, o.Progress = false, true, nil
	if _, err := ext2fs.Format(scratch, o); err != nil {
		scratch.Close()
		return nil, err
	}
	return scratch, nil
}

// scratchDevice is a device that need not outlive the command. When it is full
// that says nothing of the size that is tried.
type scratchDevice struct {
	blockdev.Device
	name string // of the file, where that cannot be removed while it is open
}

func (d *scratchDevice) Close() error {
	err := d.Device.Close()
	if d.name != "" {
		_ = os.Remove(d.name)
	}
	return err
}

func (d *scratchDevice) Sync() error { return nil }

func (d *scratchDevice) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.Device.WriteAt(p, off)
	return n, scratchErr(err)
}

// WritevAt implements blockdev.Vectored.
func (d *scratchDevice) WritevAt(bufs [][]byte, off int64) (int, error) {
	n, err := blockdev.WritevAt(d.Device, bufs, off)
	return n, scratchErr(err)
}

// ReadvAt implements blockdev.Vectored.
func (d *scratchDevice) ReadvAt(bufs [][]byte, off int64) (int, error) {
	return blockdev.ReadvAt(d.Device, bufs, off)
}

func (d *scratchDevice) ZeroOut(off, n int64) error { return scratchErr(d.Device.ZeroOut(off, n)) }

func scratchErr(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("a temporary file to try the size in: %v (TMPDIR names another place): %w", err, syscall.EIO)
	}
	return err
}

// ownInodes returns how many inodes the file system takes for itself, at most.
func (m *maker) ownInodes() uint64 {
	o := &m.opts
	n := uint64(ondisk.GoodOldFirst) // those that are reserved, and lost+found
	if o.Compat&ondisk.CompatOrphanFile != 0 {
		n++
	}
	if o.ROCompat&ondisk.ROCompatQuota != 0 {
		n++ // of projects; those of users and groups are reserved
	}
	return n
}
