package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
)

// findBadBlocks reads the list of bad blocks, or makes one by a test.
func (m *maker) findBadBlocks(dev blockdev.Device) error {
	if m.badList != "" {
		f, err := os.Open(m.badList)
		if err != nil {
			return fail("list of bad blocks: %w", err)
		}
		defer f.Close()
		if m.opts.BadBlocks, err = cli.ReadBlocks(f); err != nil {
			return fail("list of bad blocks %s: %w", m.badList, err)
		}
	}
	if m.badBlocks == 0 {
		return nil
	}
	bad, err := m.testBlocks(dev, m.badBlocks > 1)
	if err != nil {
		return err
	}
	m.opts.BadBlocks = append(m.opts.BadBlocks, bad...)
	return nil
}

// patterns are what the write test writes and reads back.
var patterns = []byte{0xaa, 0x55, 0xff, 0x00}

// testBlocks reads all blocks, or with write writes patterns to them first, and
// returns those that fail.
func (m *maker) testBlocks(dev blockdev.Device, write bool) (bad []uint64, err error) {
	if !m.quiet {
		how := "(read-only test)"
		if write {
			how = "(read-write test)"
		}
		fmt.Fprintf(m.Stdout, "Checking for bad blocks %s: ", how)
	}
	const many = 64
	bs := int64(m.opts.BlockSize)
	buf := blockdev.AlignedBuf(int(bs)*many, 4096)
	want := make([]byte, bs)
	isBad := map[uint64]bool{}
	passes := []byte{0}
	if write {
		passes = patterns
	}
	for _, p := range passes {
		for i := range want {
			want[i] = p
		}
		for b := uint64(0); b < m.opts.Blocks; b += many {
			if err := m.stopped(); err != nil {
				return nil, err
			}
			n := int(min(many, m.opts.Blocks-b))
			part := buf[:n*int(bs)]
			if write {
				for i := range n {
					copy(part[i*int(bs):], want)
				}
				if _, err := dev.WriteAt(part, int64(b)*bs); err != nil {
					if err := single(dev.WriteAt, part, b, bs, nil, isBad); err != nil {
						return nil, err
					}
				}
			}
		}
		if write {
			if err := dev.Sync(); err != nil && !errors.Is(err, syscall.EIO) {
				return nil, fail("%w", err)
			}
		}
		for b := uint64(0); b < m.opts.Blocks; b += many {
			if err := m.stopped(); err != nil {
				return nil, err
			}
			n := int(min(many, m.opts.Blocks-b))
			part := buf[:n*int(bs)]
			_, err := dev.ReadAt(part, int64(b)*bs)
			same := want
			if !write {
				same = nil
			}
			if err != nil || write && !repeats(part, want) {
				if err := single(dev.ReadAt, part, b, bs, same, isBad); err != nil {
					return nil, err
				}
			}
		}
	}
	for b := range isBad {
		bad = append(bad, b)
	}
	if !m.quiet {
		fmt.Fprintf(m.Stdout, "%-32s\n", "done")
	}
	if len(bad) > 0 {
		m.Warn(fmt.Errorf("%d bad block%s found", len(bad), plural(uint64(len(bad)))))
	}
	return bad, nil
}

func repeats(p, want []byte) bool {
	for len(p) > 0 {
		if !bytes.Equal(p[:len(want)], want) {
			return false
		}
		p = p[len(want):]
	}
	return true
}

// single does a failed operation block by block and notes those that fail, or
// do not read as want.
func single(op func([]byte, int64) (int, error), p []byte, b uint64, bs int64, want []byte, bad map[uint64]bool) error {
	for i := int64(0); i < int64(len(p))/bs; i++ {
		q := p[i*bs : (i+1)*bs]
		_, err := op(q, (int64(b)+i)*bs)
		switch {
		case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.EILSEQ),
			err == nil && want != nil && !bytes.Equal(q, want):
			bad[b+uint64(i)] = true
		case err != nil:
			return fail("testing blocks: %w", err)
		}
	}
	return nil
}
