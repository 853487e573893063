package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// mmpClaim is the block of multiple mount protection while the file system is
// open for writing: it says what it says while e2fsck works.
type mmpClaim struct {
	dev  blockdev.Device
	off  int64
	size int
	seed uint32
	csum bool
}

// minMMPInterval is the shortest check interval that there is, in seconds.
const minMMPInterval = 5

// claimMMP takes the file system that is just opened for us alone, or fails
// with EBUSY. A block that is damaged protects nobody: that is told, and the
// claim is nil.
func (s *session) claimMMP(name string) (*mmpClaim, error) {
	blk, b, m, err := s.mmpBlock(s.raw, 0)
	if err == nil {
		err = m.Verify(s.raw.CsumSeed(), s.raw.HasCsum() && !s.opts.noCsum)
	}
	if err != nil {
		s.warn(s.prog, fmt.Errorf("nothing protects the file system from being used by others: %w", err))
		return nil, nil
	}
	c := &mmpClaim{dev: s.dev, off: int64(blk) * int64(len(b)), size: len(b), seed: s.raw.CsumSeed(), csum: s.raw.HasCsum()}
	interval := max(s.raw.Super().MMPInterval.Get(), m.CheckInterval.Get(), minMMPInterval)
	wait := time.Duration(min(2*int(interval)+1, int(interval)+60)) * time.Second
	// unchanged waits as long as another host takes to be heard of.
	unchanged := func(seq uint32) error {
		s.sleep(wait)
		now, err := c.read()
		if err == nil && now.Seq.Get() != seq {
			err = fmt.Errorf("the file system is in use by %s, as %s: %w", cstr(now.NodeName[:]), cstr(now.BdevName[:]), syscall.EBUSY)
		}
		return err
	}
	switch seq := m.Seq.Get(); {
	case seq == ondisk.MMPSeqClean:
	case seq > ondisk.MMPSeqMax:
		return nil, fmt.Errorf("the file system is being checked or edited on %s, or that was cut short: after a look, say tune2fs -f -E clear_mmp: %w",
			cstr(m.NodeName[:]), syscall.EBUSY)
	default:
		if err := unchanged(seq); err != nil {
			return nil, err
		}
	}
	host, _ := os.Hostname() // for people
	clear(m.NodeName[:])
	clear(m.BdevName[:])
	copy(m.NodeName[:], host)
	copy(m.BdevName[:], name)
	seq := 1 + rand.Uint32N(ondisk.MMPSeqMax)
	if err := c.write(m, seq); err != nil {
		return nil, err
	}
	// Two who find it free at once see each other; but no two hosts share a file.
	if st, err := os.Stat(name); err != nil || st.Mode()&fs.ModeDevice != 0 {
		if err := unchanged(seq); err != nil {
			return nil, err
		}
	}
	return c, c.write(m, ondisk.MMPSeqFsck)
}

func (c *mmpClaim) read() (*ondisk.MMP, error) {
	b := make([]byte, c.size)
	if _, err := c.dev.ReadAt(b, c.off); err != nil {
		return nil, fmt.Errorf("mmp block: %w", err)
	}
	return endian.View[ondisk.MMP](b), nil
}

// write writes the block with a sequence number, and has it on the device.
func (c *mmpClaim) write(m *ondisk.MMP, seq uint32) error {
	m.Seq.Set(seq)
	m.Time.Set(uint64(time.Now().Unix()))
	if c.csum {
		m.Seal(c.seed)
	}
	_, err := c.dev.WriteAt(endian.Bytes(m), c.off)
	if err = errors.Join(err, c.dev.Sync()); err != nil {
		return fmt.Errorf("mmp block: %w", err)
	}
	return nil
}

// release says that the file system is not in use, unless the block was edited
// to say something else.
func (c *mmpClaim) release() error {
	if c == nil {
		return nil
	}
	m, err := c.read()
	if err != nil || m.Seq.Get() != ondisk.MMPSeqFsck {
		return err
	}
	return c.write(m, ondisk.MMPSeqClean)
}
