package blockdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf16"
)

// A Partition is a part of a disk, as its partition table has it.
type Partition struct {
	Number      int // from 1; logical partitions of a MBR from 5
	Start, Size int64
	Label       string // of a GPT
	UUID        string // lower case; of a MBR the disk's id and the number, as Linux has it
	Type        string // UUID, or two hex digits
}

// ErrNoTable is what ReadPartitions fails with where there is no partition table.
var ErrNoTable = errors.New("no partition table")

// ReadPartitions returns the partitions of a disk or an image of one, from a
// GPT or else a MBR. It trusts nothing that it reads: partitions outside of the
// disk are left out.
func ReadPartitions(dev Device) ([]Partition, error) {
	for _, sz := range []int64{512, 4096} {
		ps, err := readGPT(dev, 1, sz)
		if err == nil {
			return ps, nil
		}
		if errors.Is(err, errBadGPT) {
			// The copy at the end.
			if ps, e := readGPT(dev, dev.Size()/sz-1, sz); e == nil {
				return ps, nil
			}
			return nil, err
		}
		if !errors.Is(err, ErrNoTable) {
			return nil, err
		}
	}
	return readMBR(dev)
}

// FindPartition returns the partition that sel names: by its number, by
// label=NAME or by uuid=UUID (or partlabel=, partuuid=).
func FindPartition(dev Device, sel string) (Partition, error) {
	ps, err := ReadPartitions(dev)
	if err != nil {
		return Partition{}, err
	}
	key, value, named := strings.Cut(sel, "=")
	match := func(p Partition) bool { return strconv.Itoa(p.Number) == sel }
	switch strings.ToLower(key) {
	case "label", "partlabel":
		match = func(p Partition) bool { return p.Label == value }
	case "uuid", "partuuid":
		match = func(p Partition) bool { return strings.EqualFold(p.UUID, value) }
	default:
		if _, err := strconv.Atoi(sel); err != nil || named {
			return Partition{}, fmt.Errorf("partition %q: a number, label=NAME or uuid=UUID is meant: %w", sel, syscall.EINVAL)
		}
	}
	var found []Partition
	for _, p := range ps {
		if match(p) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		var have []string
		for _, p := range ps {
			have = append(have, strconv.Itoa(p.Number))
		}
		return Partition{}, fmt.Errorf("no partition %q; there are %s: %w", sel, strings.Join(have, ", "), syscall.ENXIO)
	}
	return Partition{}, fmt.Errorf("%d partitions are %q; name one by its number: %w", len(found), sel, syscall.EINVAL)
}

var errBadGPT = fmt.Errorf("the GPT is damaged: %w", syscall.EINVAL)

const (
	gptHeader     = 92  // bytes
	gptEntries    = 128 // that are read at most; more are possible and not used
	gptEntryLeast = 128 // bytes
	gptEntryMost  = 4096
)

// readGPT reads the table whose header is at block lba of sz bytes.
func readGPT(dev Device, lba, sz int64) ([]Partition, error) {
	le := binary.LittleEndian
	h := make([]byte, gptHeader)
	if err := readFull(dev, h, lba*sz); err != nil {
		return nil, err
	}
	if string(h[:8]) != "EFI PART" {
		return nil, ErrNoTable
	}
	if le.Uint32(h[12:]) != gptHeader {
		return nil, fmt.Errorf("header of %d bytes: %w", le.Uint32(h[12:]), errBadGPT)
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h) != sum {
		return nil, fmt.Errorf("checksum of the header: %w", errBadGPT)
	}
	at, n, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if size < gptEntryLeast || size > gptEntryMost || n > 4*gptEntries || at > math.MaxInt64/uint64(sz) {
		return nil, fmt.Errorf("%d entries of %d bytes: %w", n, size, errBadGPT)
	}
	t := make([]byte, n*size)
	if err := readFull(dev, t, int64(at)*sz); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(t) != le.Uint32(h[88:]) {
		return nil, fmt.Errorf("checksum of the entries: %w", errBadGPT)
	}
	var out []Partition
	for i := range int(n) {
		e := t[i*int(size):]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if last < first || last >= uint64(dev.Size()/sz) {
			continue
		}
		var name [36]uint16
		for k := range name {
			name[k] = le.Uint16(e[56+2*k:])
		}
		label, _, _ := strings.Cut(string(utf16.Decode(name[:])), "\x00")
		out = append(out, Partition{
			Number: i + 1, Start: int64(first) * sz, Size: int64(last-first+1) * sz,
			Label: label, UUID: guid(e[16:]), Type: guid(e),
		})
	}
	return out, nil
}

// guid prints a UUID whose first three numbers are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

const mbrLogical = 64 // that are followed at most

func readMBR(dev Device) ([]Partition, error) {
	le := binary.LittleEndian
	b := make([]byte, sector)
	if err := readFull(dev, b, 0); err != nil {
		return nil, err
	}
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil, ErrNoTable
	}
	id := le.Uint32(b[440:])
	var out []Partition
	add := func(n int, start, size int64, kind byte) {
		if size > 0 && start+size <= dev.Size() {
			out = append(out, Partition{Number: n, Start: start, Size: size,
				UUID: fmt.Sprintf("%08x-%02x", id, n), Type: fmt.Sprintf("%02x", kind)})
		}
	}
	extended := int64(0)
	for i := range 4 {
		e := b[446+16*i:]
		if e[0]&0x7f != 0 {
			return nil, ErrNoTable // the boot sector of something else
		}
		start, size := int64(le.Uint32(e[8:]))*sector, int64(le.Uint32(e[12:]))*sector
		switch e[4] {
		case 0:
		case 0x05, 0x0f, 0x85:
			extended = start
		default:
			add(i+1, start, size, e[4])
		}
	}
	at := extended
	for n := 5; at != 0 && n < 5+mbrLogical; n++ {
		if readFull(dev, b, at) != nil || b[510] != 0x55 || b[511] != 0xaa {
			break
		}
		e, next := b[446:], b[462:]
		if e[4] != 0 {
			add(n, at+int64(le.Uint32(e[8:]))*sector, int64(le.Uint32(e[12:]))*sector, e[4])
		}
		if at = 0; next[4] != 0 {
			at = extended + int64(le.Uint32(next[8:]))*sector
		}
	}
	if out == nil {
		return nil, ErrNoTable
	}
	return out, nil
}

// readFull is ReadAt for what may lie beyond the end: then there is no table.
func readFull(dev Device, p []byte, off int64) error {
	if _, err := dev.ReadAt(p, off); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ErrNoTable
		}
		return err
	}
	return nil
}
