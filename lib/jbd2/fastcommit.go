package jbd2

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/endian"
)

// Fast commit tags. Kernel: filesystems/ext4/journal.rst, "Fast commits".
const (
	FCAddRange = 1
	FCDelRange = 2
	FCCreat    = 3
	FCLink     = 4
	FCUnlink   = 5
	FCInode    = 6
	FCPad      = 7
	FCTail     = 8
	FCHead     = 9
)

// FCTagHeader starts each tag of a fast commit; its value follows. Unlike the
// rest of the journal, fast commits are little-endian: the file system, not the
// journal, gave them their form.
type FCTagHeader struct {
	Tag endian.LE16 // fc_tag
	Len endian.LE16 // fc_len: of the value, bytes
}

// FCTailValue ends a fast commit.
type FCTailValue struct {
	Tid endian.LE32 // fc_tid
	CRC endian.LE32 // fc_crc: crc32c from 0 of the fast commit up to here
}

// FCHeadValue starts the first fast commit after a full one.
type FCHeadValue struct {
	Features endian.LE32 // fc_features: none is defined
	Tid      endian.LE32 // fc_tid: of the transaction that would have come
}

const fcHeaderBytes = 4

// FCTags returns the tags that block b of a fast commit area has, with their
// values, in place, until yield returns false. A tag whose value would reach
// past the block ends it.
func FCTags(b []byte, yield func(tag uint16, raw []byte) bool) {
	for off := 0; off+fcHeaderBytes <= len(b); {
		h := endian.View[FCTagHeader](b[off:])
		end := off + fcHeaderBytes + int(h.Len.Get())
		if end > len(b) {
			return
		}
		if !yield(h.Tag.Get(), b[off:end:end]) {
			return
		}
		off = end
	}
}

// findFastCommits returns how many tags, from the start of the fast commit
// area, belong to complete fast commits on top of the log's end.
//
// The area is read twice rather than kept in memory.
func (rec *recovery) findFastCommits() (int, error) {
	j := rec.j
	if !j.has(IncompatFastCommit) || rec.stats.Failed {
		return 0, nil
	}
	var (
		valid, n int
		crc      uint32
		stop     bool
		err      error
	)
	// The block after the log proper is left free by the kernel.
	for blk := j.last + 1; blk < j.total && !stop; blk++ {
		b, rerr := rec.log.block(blk)
		if rerr != nil {
			return valid, rerr
		}
		before := n
		FCTags(b, func(tag uint16, raw []byte) bool {
			value := raw[fcHeaderBytes:]
			if n == 0 && tag != FCHead {
				stop = true
				return false
			}
			n++
			switch tag {
			case FCAddRange, FCDelRange, FCCreat, FCLink, FCUnlink, FCInode, FCPad:
				crc = crc32c(crc, raw)
			case FCHead:
				if len(value) < 8 {
					stop = true
					break
				}
				h := endian.View[FCHeadValue](value)
				switch {
				case Tid(h.Tid.Get()) != rec.end:
					stop = true
				case h.Features.Get() != 0:
					stop = true
					err = &UnsupportedError{"fast commit", h.Features.Get()}
				}
				crc = crc32c(crc, raw)
			case FCTail:
				if len(value) < 8 {
					stop = true
					break
				}
				t := endian.View[FCTailValue](value)
				crc = crc32c(crc, raw[:fcHeaderBytes+4])
				switch {
				case Tid(t.Tid.Get()) != rec.end:
					stop = true
				case t.CRC.Get() == crc:
					valid = n
				default:
					stop = true
					if valid == 0 {
						err = &CorruptError{What: "fast commit", Block: blk, Csum: true, Why: "bad checksum"}
					}
				}
				crc = 0
			default:
				stop = true
			}
			return !stop
		})
		if n == before {
			break
		}
	}
	return valid, err
}

// replayFastCommits hands over the first count tags.
func (rec *recovery) replayFastCommits(count int) error {
	j := rec.j
	for blk := j.last + 1; blk < j.total && count > 0; blk++ {
		b, err := rec.log.block(blk)
		if err != nil {
			return err
		}
		FCTags(b, func(tag uint16, raw []byte) bool {
			switch tag {
			case FCPad, FCHead, FCTail:
			default:
				if err = rec.r.FastCommit(tag, raw[fcHeaderBytes:]); err != nil {
					err = fmt.Errorf("fast commit: %w", err)
					return false
				}
				rec.stats.FastCommits++
			}
			count--
			return count > 0
		})
		if err != nil {
			return err
		}
	}
	return nil
}
