package main

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// resolve turns what was asked for, the configuration and the device into what
// is to be made.
func (m *maker) resolve() error {
	m.opts = ext2fs.FormatOptions{HashVersion: ondisk.HashHalfMD4}
	for _, step := range []func() error{
		m.resolveCount, m.resolveTypes, m.resolveExtended, m.resolveFeatures, m.resolveBlockSize,
		m.resolveGeometry, m.resolveInodes, m.resolveJournal, m.resolveIdentity, m.checkRequest,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// resolveCount finds the number of blocks, in KiB while no size of them is known.
func (m *maker) resolveCount() (err error) {
	m.log = 10
	if m.blockSize > 0 {
		m.log = uint(bits.TrailingZeros64(uint64(m.blockSize)))
	}
	have := uint64(m.target.size) >> m.log
	if m.auto && m.size == "" {
		m.count = uint64(m.contentSize()) >> m.log // what the usage type follows; the size is found later
		return nil
	}
	if m.size == "" {
		if m.target.size == 0 {
			return fail("%s: there is nothing there; give a size", m.device)
		}
		m.count = have
		if page := uint64(os.Getpagesize()) >> m.log; page > 1 {
			m.count &^= page - 1
		}
		return nil
	}
	if m.count, err = parseBlocks(m.size, m.log); err != nil {
		return err
	}
	if m.count == 0 {
		return cli.Usagef("a file system of %s has no blocks", m.size)
	}
	return nil
}

// resolveTypes makes the list of types.
func (m *maker) resolveTypes() error {
	if m.fsType == "" {
		m.fsType, _ = m.conf.Get("devices", m.device, "fs_type")
	}
	if m.usage == "" {
		m.usage, _ = m.conf.Get("devices", m.device, "usage_types")
	}
	if m.fsType == "" {
		m.fsType, _ = m.conf.Get("defaults", "fs_type")
	}
	if m.fsType == "" {
		m.fsType = "ext2"
		if m.journal {
			m.fsType = "ext3"
		}
	}
	os := m.creator
	if os == "" {
		os, _ = m.conf.Get("defaults", "creator_os")
	}
	if os != "" {
		n, err := creatorOS(os)
		if err != nil {
			return err
		}
		m.opts.CreatorOS = n
	}
	size := m.count << m.log
	if m.count > math.MaxUint64>>m.log {
		size = math.MaxUint64
	}
	types, warnings, err := m.conf.Types(m.fsType, m.usage, sizeType(size), m.opts.CreatorOS == ondisk.OSHurd, m.force > 0)
	if err != nil {
		return fail("%w", err)
	}
	for _, w := range warnings {
		m.Warn(fmt.Errorf("%s", w))
	}
	m.types = types
	return nil
}

// resolveBlockSize settles the block size and, with it, the number of blocks.
func (m *maker) resolveBlockSize() error {
	if m.blockSize <= 0 {
		size := m.types.Int("blocksize", 4096)
		if size == -1 {
			size = int64(os.Getpagesize())
		}
		size = max(size, int64(m.target.sector), -m.blockSize)
		if size < ondisk.MinBlockSize || size > ondisk.MaxBlockSize || size&(size-1) != 0 {
			return fail("the configuration gives a block size of %d: not a power of two from %d to %d",
				size, ondisk.MinBlockSize, ondisk.MaxBlockSize)
		}
		m.blockSize = size
		m.log = uint(bits.TrailingZeros64(uint64(size)))
		m.count >>= m.log - 10
	} else if int(m.blockSize) < m.target.sector {
		return fail("blocks of %d bytes are smaller than a sector of %s, %d bytes", m.blockSize, m.device, m.target.sector)
	} else if int(m.blockSize) < m.target.physical && m.target.physical <= os.Getpagesize() {
		m.Warn(fmt.Errorf("blocks of %d bytes are smaller than a physical sector of %s, %d bytes: slow", m.blockSize, m.device, m.target.physical))
	}
	if page := os.Getpagesize(); int(m.blockSize) > page {
		if m.force == 0 {
			fmt.Fprintf(m.Stderr, "%s: blocks of %d bytes are larger than a page here, %d: few kernels mount that\n", m.Prog, m.blockSize, page)
			if err := m.proceed(); err != nil {
				return err
			}
		} else {
			m.Warn(fmt.Errorf("blocks of %d bytes are larger than a page here, %d: few kernels mount that", m.blockSize, page))
		}
	}
	m.opts.BlockSize = int(m.blockSize)
	return nil
}

// resolveExtended parses the extended options of the configuration, then those
// of the command line again, which come before.
func (m *maker) resolveExtended() error {
	e := extended{}
	e.backups, e.revision = -1, -1
	if err := e.parse(m.types.String("options", "")); err != nil {
		return fail("relation options of the configuration: %w", err)
	}
	for _, list := range m.request.extended {
		if err := e.parse(list); err != nil {
			return err
		}
	}
	m.extended = e
	o := &m.opts
	o.RootUID, o.RootGID, o.RootMode, o.RootSELinux = e.rootUID, e.rootGID, e.rootMode, e.rootSELinux
	o.TestFS, o.QuotaTypes, o.DescSize = e.testFS, e.quotaTypes, int(e.descSize)
	o.AssumeZeroed = e.prezeroed
	return nil
}

// resolveGeometry is for what decides the layout of groups.
func (m *maker) resolveGeometry() (err error) {
	o, e := &m.opts, &m.extended
	if err := m.resolveWide(o, m.count); err != nil {
		return err
	}
	if o.Compat&ondisk.CompatSparseSuper2 != 0 {
		o.SparseBackups = int(m.types.Int("num_backup_sb", 2))
		if e.backups >= 0 {
			o.SparseBackups = e.backups
		}
		if o.SparseBackups < 0 || o.SparseBackups > 2 {
			return fail("num_backup_sb is 0, 1 or 2, not %d", o.SparseBackups)
		}
	}
	o.Blocks = m.count
	o.Stride, o.StripeWidth = m.target.stride(m.blockSize)
	if e.stride != 0 {
		o.Stride = uint32(e.stride)
	}
	if e.stripe != 0 {
		o.StripeWidth = uint32(e.stripe)
	}
	o.BlocksPerGroup = uint32(m.perGroup)
	if o.Incompat&ondisk.IncompatFlexBG != 0 {
		n := m.flex
		if n == 0 {
			n = m.types.Int("flex_bg_size", 16)
		}
		if n < 1 || n > 1<<31 || n&(n-1) != 0 {
			return fail("%d groups per flex group are not a power of two", n)
		}
		o.GroupsPerFlex = uint32(n)
	} else if m.flex != 0 {
		return fail("-G needs the flex_bg feature")
	}
	if o.ROCompat&ondisk.ROCompatBigalloc != 0 {
		n := m.clusterSize
		if n == 0 {
			n = m.types.Int("cluster_size", 16*m.blockSize)
		}
		if n < m.blockSize || n > 256<<20 || n&(n-1) != 0 {
			return fail("cluster size %d is not a power of two from the block size, %d, to 256 MiB", n, m.blockSize)
		}
		o.ClusterSize = int(n)
	} else if m.clusterSize != 0 {
		return fail("-C needs the bigalloc feature")
	}
	o.ReservedRatio = m.reserved
	if m.reserved < 0 {
		o.ReservedRatio = m.types.Float("reserved_ratio", 5)
		if !(o.ReservedRatio >= 0 && o.ReservedRatio <= 50) {
			return fail("reserved_ratio is 0 to 50 percent, not %g", o.ReservedRatio)
		}
	}
	if o.Incompat&ondisk.IncompatMetaBG != 0 {
		if n, err := strconv.ParseUint(os.Getenv("MKE2FS_FIRST_META_BG"), 0, 32); err == nil {
			o.FirstMetaBG = uint32(n)
		}
	}
	o.PackedMeta = m.types.Bool("packed_meta_blocks", false)
	if e.packed != nil {
		o.PackedMeta = *e.packed
	}
	if e.resize != "" {
		if o.ResizeLimit, err = parseBlocks(e.resize, m.log); err != nil {
			return err
		}
		switch {
		case o.ResizeLimit <= m.count && !m.auto:
			return fail("resize=%s is not more than the file system has, %d blocks", e.resize, m.count)
		case o.Revision0:
			return fail("resize= needs revision 1")
		case o.ResizeLimit > math.MaxUint32:
			return fail("resize=%s: the resize inode goes up to 2^32 blocks", e.resize)
		}
		o.Compat |= ondisk.CompatResizeInode
	}
	o.Discard = m.types.Bool("discard", true) && !m.noDiscard
	if e.discard != nil {
		o.Discard = *e.discard
	}
	o.LazyItable = m.types.Bool("lazy_itable_init", true)
	if e.lazyItable != nil {
		o.LazyItable = *e.lazyItable
	}
	o.LazyJournal = m.types.Bool("lazy_journal_init", false) || e.prezeroed
	if e.lazyJournal != nil {
		o.LazyJournal = *e.lazyJournal
	}
	o.SuperOnly = m.superOnly
	return nil
}

// resolveWide is for more blocks than 32 bits count.
func (m *maker) resolveWide(o *ext2fs.FormatOptions, blocks uint64) error {
	if blocks <= math.MaxUint32 {
		return nil
	}
	if o.Incompat&ondisk.Incompat64Bit == 0 && !m.types.Bool("auto_64-bit_support", false) {
		return fail("%d blocks of %d bytes are more than 32 bits count; use -O 64bit or larger blocks", blocks, m.blockSize)
	}
	o.Incompat |= ondisk.Incompat64Bit
	o.Compat &^= ondisk.CompatResizeInode // which maps blocks of 32 bits only
	return nil
}

// resolveInodes settles size and number of inodes.
func (m *maker) resolveInodes() error {
	o := &m.opts
	o.InodeSize = int(m.inodeSize)
	if o.InodeSize == 0 {
		o.InodeSize = int(m.types.Int("inode_size", 256))
	}
	if o.Revision0 {
		o.InodeSize = ondisk.GoodOldInodeSz
	}
	if n := o.InodeSize; n < ondisk.GoodOldInodeSz || n > o.BlockSize || n&(n-1) != 0 {
		return fail("inode size %d is not a power of two from %d to the block size, %d", n, ondisk.GoodOldInodeSz, o.BlockSize)
	}
	if o.InodeSize == ondisk.GoodOldInodeSz {
		switch {
		case o.Incompat&ondisk.IncompatInlineData != 0:
			return fail("inodes of 128 bytes are too small for inline_data; use -I 256")
		case o.ROCompat&ondisk.ROCompatProject != 0:
			return fail("inodes of 128 bytes have no room for project ids; use -I 256")
		}
		if m.types.Bool("warn_y2038_dates", true) && !o.Revision0 {
			fmt.Fprintln(m.Stdout, "128-byte inodes cannot handle dates beyond 2038 and are deprecated")
		}
	}
	m.bytesPerInode = m.ratio
	if m.bytesPerInode == 0 {
		m.bytesPerInode = m.types.Int("inode_ratio", 8192)
		if m.bytesPerInode < 1 {
			return fail("inode_ratio is at least 1, not %d", m.bytesPerInode)
		}
		// More inodes than blocks, or clusters, could never be used.
		m.bytesPerInode = max(m.bytesPerInode, m.blockSize, int64(o.ClusterSize))
	}
	if m.auto {
		return nil // as many as are needed, once that is known
	}
	n := uint64(m.inodes)
	if n == 0 {
		n = m.inodesFor(m.count)
		if n > math.MaxUint32 {
			if o.Incompat&ondisk.Incompat64Bit == 0 {
				return fail("%d inodes are too many: raise the bytes per inode, -i", n)
			}
			n = math.MaxUint32
		}
	}
	if n*uint64(o.InodeSize) >= m.count<<m.log && m.count<<m.log>>m.log == m.count {
		return fail("%d inodes of %d bytes are too many for %d blocks: raise the bytes per inode, -i, or lower their number, -N",
			n, o.InodeSize, m.count)
	}
	o.Inodes = uint32(max(n, 1))
	return nil
}

// inodesFor returns how many inodes so many blocks get by their ratio.
func (m *maker) inodesFor(blocks uint64) uint64 {
	// The quotient first where the product might not fit.
	hi, lo := bits.Mul64(blocks, uint64(m.blockSize))
	if hi >= uint64(m.bytesPerInode) {
		return math.MaxUint64
	}
	n, _ := bits.Div64(hi, lo, uint64(m.bytesPerInode))
	return n
}

// resolveJournal is for -J and the orphan file.
func (m *maker) resolveJournal() error {
	o, j := &m.opts, &m.journalOpts
	kib := int64(1) << (m.log - 10)
	if n := j.sizeMiB * 1024 / kib; n > math.MaxUint32 {
		return fail("a journal of %d MiB is too large", j.sizeMiB)
	} else {
		o.JournalBlocks = uint32(n)
	}
	if n := j.fcKiB / kib; n > math.MaxUint32 {
		return fail("a fast commit area of %d KiB is too large", j.fcKiB)
	} else {
		o.FCBlocks = uint32(n)
	}
	if j.fcKiB != 0 && o.Compat&ondisk.CompatFastCommit == 0 {
		return fail("fast_commit_size needs the fast_commit feature")
	}
	at := j.location
	if at == "" {
		at = m.types.String("journal_location", "")
	}
	if at != "" {
		n, err := parseBlocks(at, m.log)
		if err != nil {
			return err
		}
		if n >= m.count && !m.auto {
			return fail("journal location %s lies beyond the file system", at)
		}
		o.JournalAt = max(n, 1)
	}
	o.JournalV1 = j.v1
	if m.orphanSize != "" {
		n, err := parseBlocks(m.orphanSize, m.log)
		if err != nil || n < 1 || n > 1<<20 {
			return fail("orphan_file_size %s: it has 1 to %d blocks of %d bytes", m.orphanSize, 1<<20, m.blockSize)
		}
		o.OrphanBlocks = uint32(n)
	}
	if j.device == "" {
		return nil
	}
	return m.externalJournal(j.device)
}

// resolveIdentity is for what names the file system and sets its defaults.
func (m *maker) resolveIdentity() (err error) {
	o := &m.opts
	if o.Time, err = now(); err != nil {
		return err
	}
	switch m.uuid {
	case "", "random":
		o.UUID = ext2fs.RandomUUID()
	case "time":
		o.UUID = timeUUID()
	default:
		u, ok := parseUUID(m.uuid)
		if !ok {
			return fail("-U %q: not a UUID, clear, random or time", m.uuid)
		}
		o.UUID = u
	}
	o.HashSeed = ext2fs.RandomUUID()
	if m.hashSeed != nil {
		o.HashSeed = *m.hashSeed
	}
	switch alg := m.types.String("hash_alg", "half_md4"); alg {
	case "legacy":
		o.HashVersion = ondisk.HashLegacy
	case "half_md4":
		o.HashVersion = ondisk.HashHalfMD4
	case "tea":
		o.HashVersion = ondisk.HashTEA
	default:
		return fail("hash_alg %q is not legacy, half_md4 or tea", alg)
	}
	if m.label != nil {
		o.Label = *m.label
	}
	o.LastMounted = m.lastMounted
	o.Errors = m.errors
	if o.Errors == 0 {
		if o.Errors, err = parseErrors(m.types.String("errors", "continue")); err != nil {
			return err
		}
	}
	for _, w := range strings.FieldsFunc(m.types.String("default_mntopts", "acl,user_xattr"), isListSep) {
		clear := strings.HasPrefix(w, "^")
		v, mask, err := e2p.ParseMountOption(strings.TrimPrefix(w, "^"))
		if err != nil {
			return fail("default_mntopts: %w", err)
		}
		o.MountOptions &^= mask
		if !clear {
			o.MountOptions |= v
		}
	}
	m.resolvePeriod()
	o.MMPInterval = m.mmpInterval
	o.NodeName, _ = os.Hostname()
	o.DeviceName = m.device
	return m.resolveEncoding()
}

// resolvePeriod settles after how many mounts and days it is to be checked.
func (m *maker) resolvePeriod() {
	o := &m.opts
	o.MaxMntCount = -1
	if m.types.Bool("enable_periodic_fsck", false) {
		const interval, mounts = 180 * 86400, 20
		o.CheckInterval = interval
		sum := 0
		for _, b := range o.UUID {
			sum += int(b)
		}
		// Not all file systems of a machine at the same time.
		o.MaxMntCount = int16(mounts + sum%mounts)
	}
}

func (m *maker) resolveEncoding() error {
	o := &m.opts
	if m.encoding == "" && m.encFlags != nil {
		return fail("encoding_flags needs an encoding: -E encoding=utf8")
	}
	if o.Incompat&ondisk.IncompatCasefold == 0 {
		return nil
	}
	if m.encoding == "" {
		name := m.types.String("encoding", "utf8")
		if name != "utf8" && name != "utf8-12.1" {
			return fail("encoding %q is not utf8 or utf8-12.1", name)
		}
	}
	o.Encoding = 1
	if m.encFlags != nil {
		o.EncodingFlags = *m.encFlags
	} else if f := m.types.String("encoding_flags", ""); f != "" {
		n, err := encodingFlags(f)
		if err != nil {
			return fail("encoding_flags: %w", err)
		}
		o.EncodingFlags = n
	}
	return nil
}

func isListSep(r rune) bool { return r == ',' || r == ' ' || r == '\t' }
