package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// target is where the file system goes.
type target struct {
	exists   bool
	block    bool  // a block device, else a file
	offset   int64 // bytes: start of the file system
	length   int64 // bytes: of the partition, 0 without one
	size     int64 // bytes: what there is from offset on
	rdev     uint64
	sector   int // bytes: logical sector; 0: not known
	physical int
}

// findTarget looks at the device.
func (m *maker) findTarget() error {
	t := &m.target
	t.sector = envInt("MKE2FS_DEVICE_SECTSIZE")
	t.physical = envInt("MKE2FS_DEVICE_PHYS_SECTSIZE")
	block, rdev, err := statTarget(m.device)
	if errors.Is(err, fs.ErrNotExist) {
		if m.size == "" && !m.auto {
			return fail("%s does not exist; give a size to create an image file", m.device)
		}
		t.offset = m.offset
		return nil
	}
	if err != nil {
		return fail("%s: %w", m.device, err)
	}
	t.exists, t.block, t.rdev = true, block, rdev
	dev, err := blockdev.Open(m.device, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		return fail("%w", err)
	}
	defer dev.Close()
	t.size = dev.Size()
	if i := dev.Info(); t.block {
		if t.sector == 0 {
			t.sector = i.LogicalBlock
		}
		if t.physical == 0 {
			t.physical = i.PhysicalBlock
		}
	}
	if m.selector != "" {
		p, err := blockdev.FindPartition(dev, m.selector)
		if err != nil {
			return fail("%s: %w", m.device, err)
		}
		t.offset, t.length, t.size = p.Start, p.Size, p.Size
	}
	if m.offset > 0 {
		if t.exists && m.offset >= t.size && t.block {
			return fail("offset %d lies beyond %s, %d bytes", m.offset, m.device, t.size)
		}
		t.offset += m.offset
		t.size = max(t.size-m.offset, 0)
		if t.length != 0 {
			t.length -= m.offset
		}
	}
	return nil
}

func envInt(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return max(n, 0)
}

// stride returns the stride and stripe width, in blocks, that the device says
// are good for it; 0 if it does not.
func (t *target) stride(blockSize int64) (stride, stripe uint32) {
	if !t.block {
		return 0, 0
	}
	return uint32(t.queue("minimum_io_size") / blockSize), uint32(t.queue("optimal_io_size") / blockSize)
}

// queue returns a limit of the device's queue.
func (t *target) queue(name string) int64 {
	for _, q := range []string{"queue/", "../queue/"} {
		if n, ok := sysNumber(t.rdev, q+name); ok {
			return n
		}
	}
	return 0
}

// createTarget makes the image file as long as it has to be.
func (m *maker) createTarget() error {
	t := &m.target
	need := t.offset + int64(m.opts.Blocks)<<m.log
	if int64(m.opts.Blocks)<<m.log>>m.log != int64(m.opts.Blocks) || need < 0 {
		return fail("%d blocks of %d bytes are more than a file can have", m.opts.Blocks, m.opts.BlockSize)
	}
	if t.block {
		return nil
	}
	have := t.offset + t.size
	// A file that is the file system alone gets the size that was found for it,
	// and what it had is not to show in one that is to be the same each time.
	alone := m.offset == 0 && m.selector == "" && m.undo == nil && !m.types.Bool("force_undo", false)
	cut := t.exists && alone && (m.auto && have > need || m.reproducible)
	if t.exists && have >= need && !cut {
		return nil
	}
	flags := os.O_RDWR
	if t.exists {
		// What it has is not taken away from somebody who uses it.
		held, err := m.openExclusive(blockdev.Options{Direct: blockdev.DirectOff})
		if err != nil {
			return err
		}
		defer held.Close()
	} else {
		fmt.Fprintf(m.Stdout, "Creating regular file %s\n", m.device)
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(m.device, flags, 0o666)
	if err != nil {
		return fail("%w", err)
	}
	defer f.Close()
	if cut {
		if err := f.Truncate(0); err != nil {
			return fail("%s: %w", m.device, err)
		}
	}
	makeSparse(f)
	if err := f.Truncate(need); err != nil {
		return fail("%s: %d bytes: %w", m.device, need, err)
	}
	return nil
}

// openTarget opens the device for writing.
func (m *maker) openTarget() (*blockdev.File, error) {
	o := blockdev.Options{Offset: m.target.offset, Length: m.target.length, Direct: blockdev.DirectOff}
	if m.direct {
		o.Direct = blockdev.DirectOn
	}
	return m.openExclusive(o)
}

// openExclusive opens the device or file for writing. It is the only user unless
// forced.
func (m *maker) openExclusive(o blockdev.Options) (*blockdev.File, error) {
	o.Exclusive = m.force < 2
	dev, err := blockdev.Open(m.device, o)
	if errors.Is(err, blockdev.ErrInUse) {
		return nil, fail("%s is apparently in use by the system; no file system is made there (-F -F does it)", m.device)
	}
	if err != nil {
		return nil, fail("%w", err)
	}
	return dev, nil
}
