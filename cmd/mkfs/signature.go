package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// signature is what a device holds already.
type signature struct {
	kind  string // as blkid names it: ext4, xfs, crypto_LUKS, gpt
	what  string // "file system", "partition table", ...
	label string
	more  []string // further lines
}

func (s *signature) tell(w io.Writer, device string) {
	if s.what == "partition table" {
		fmt.Fprintf(w, "Found a %s partition table in %s\n", s.kind, device)
		return
	}
	fmt.Fprintf(w, "%s contains a %s %s", device, s.kind, s.what)
	if s.label != "" {
		fmt.Fprintf(w, " labelled '%s'", cli.Clean(s.label))
	}
	fmt.Fprintln(w)
	for _, l := range s.more {
		fmt.Fprintf(w, "\t%s\n", l)
	}
}

// magic is a signature that bytes at one place tell.
type magic struct {
	off              int64
	magic            string
	kind, what       string
	labelAt, labelSz int64
}

var magics = []magic{
	{0, "XFSB", "xfs", "file system", 0x6c, 12},
	{0x10040, "_BHRfS_M", "btrfs", "file system", 0x1012b, 256},
	{0x400, "\x10\x20\xf5\xf2", "f2fs", "file system", 0, 0},
	{3, "NTFS    ", "ntfs", "file system", 0, 0},
	{3, "EXFAT   ", "exfat", "file system", 0, 0},
	{0x52, "FAT32   ", "vfat", "file system", 0x47, 11},
	{0x36, "FAT16   ", "vfat", "file system", 0x2b, 11},
	{0x36, "FAT12   ", "vfat", "file system", 0x2b, 11},
	{0x8001, "CD001", "iso9660", "file system", 0x8028, 32},
	{0, "hsqs", "squashfs", "file system", 0, 0},
	{0x400, "\xe2\xe1\xf5\xe0", "erofs", "file system", 0x440, 16},
	{0x10034, "ReIsErFs", "reiserfs", "file system", 0x10064, 16},
	{0x10034, "ReIsEr2Fs", "reiserfs", "file system", 0x10064, 16},
	{0x8000, "JFS1", "jfs", "file system", 0, 0},
	{0x1018, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "bcachefs", "file system", 0, 0},
	{0x1018, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache", "cache device", 0, 0},
	{0, "LUKS\xba\xbe\x00\x01", "crypto_LUKS", "volume", 0, 0},
	{0, "LUKS\xba\xbe\x00\x02", "crypto_LUKS", "volume", 0x18, 48},
	{0x218, "LVM2 001", "LVM2_member", "volume", 0, 0},
	{0xff6, "SWAPSPACE2", "swap", "file system", 0x41c, 16},
	{0xff6, "SWAP-SPACE", "swap", "file system", 0, 0},
	{0x1000, "\xfc\x4e\x2b\xa9", "linux_raid_member", "volume", 0x1020, 32},
	{0, "\xfc\x4e\x2b\xa9", "linux_raid_member", "volume", 0x20, 32},
	{0x20000, "\x0c\xb1\xba\x00\x00\x00\x00\x00", "zfs_member", "volume", 0, 0},
}

// probe returns what is on the device, as far as it is known. Nothing that it
// reads is trusted.
func probe(dev blockdev.Device) (found []*signature) {
	at := func(off, n int64) []byte {
		b := make([]byte, n)
		if _, err := dev.ReadAt(b, off); err != nil {
			return nil
		}
		return b
	}
	if s := probeExt(at(ondisk.SuperOffset, ondisk.SuperSize)); s != nil {
		found = append(found, s)
	}
	for _, m := range magics {
		if string(at(m.off, int64(len(m.magic)))) != m.magic || len(found) > 0 && found[len(found)-1].kind == m.kind {
			continue
		}
		s := &signature{kind: m.kind, what: m.what}
		if m.labelSz > 0 {
			s.label = text(at(m.labelAt, m.labelSz))
		}
		found = append(found, s)
	}
	// mdraid of old lies at the end.
	if end := dev.Size()&^0xffff - 0x10000; end >= 0 && string(at(end, 4)) == "\xfc\x4e\x2b\xa9" {
		found = append(found, &signature{kind: "linux_raid_member", what: "volume"})
	}
	if len(found) > 0 {
		return found
	}
	for _, sector := range []int64{512, 4096} {
		if string(at(sector, 8)) == "EFI PART" {
			return append(found, &signature{kind: "gpt", what: "partition table"})
		}
	}
	if b := at(0, 512); b != nil && b[510] == 0x55 && b[511] == 0xaa && likelyMBR(b) {
		found = append(found, &signature{kind: "dos", what: "partition table"})
	}
	return found
}

// likelyMBR tells a partition table from the boot sector of a file system.
func likelyMBR(b []byte) bool {
	used := false
	for i := range 4 {
		p := b[446+16*i:]
		if p[0]&0x7f != 0 {
			return false
		}
		used = used || p[4] != 0
	}
	return used
}

func probeExt(b []byte) *signature {
	if b == nil {
		return nil
	}
	s := endian.View[ondisk.Super](b)
	if s.Magic.Get() != ondisk.SuperMagic {
		return nil
	}
	sig := &signature{kind: "ext2", what: "file system", label: text(s.VolumeName[:])}
	const ext4Incompat = ^uint32(ondisk.IncompatFiletype | ondisk.IncompatRecover | ondisk.IncompatMetaBG)
	const ext4ROCompat = ^uint32(ondisk.ROCompatSparseSuper | ondisk.ROCompatLargeFile | ondisk.ROCompatBtreeDir)
	switch {
	case s.HasIncompat(ondisk.IncompatJournalDev):
		sig.kind, sig.what = "jbd", "journal"
	case s.HasIncompat(ext4Incompat) || s.HasROCompat(ext4ROCompat):
		sig.kind = "ext4"
	case s.HasCompat(ondisk.CompatHasJournal):
		sig.kind = "ext3"
	}
	when := func(lo uint32, hi byte) string {
		return time.Unix(int64(hi)<<32|int64(lo), 0).Format("Mon Jan _2 15:04:05 2006")
	}
	dir := text(s.LastMounted[:])
	switch {
	case s.Mtime.Get() != 0 && dir != "":
		sig.more = append(sig.more, "last mounted on "+cli.Clean(dir)+" on "+when(s.Mtime.Get(), s.MtimeHi[0]))
	case s.Mtime.Get() != 0:
		sig.more = append(sig.more, "last mounted on "+when(s.Mtime.Get(), s.MtimeHi[0]))
	case s.MkfsTime.Get() != 0:
		sig.more = append(sig.more, "created on "+when(s.MkfsTime.Get(), s.MkfsTimeHi[0]))
	case s.Wtime.Get() != 0:
		sig.more = append(sig.more, "last modified on "+when(s.Wtime.Get(), s.WtimeHi[0]))
	}
	return sig
}

// endBlanks pad labels of FAT and ISO 9660.
const endBlanks = " \x00"

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.TrimRight(string(b), endBlanks)
}

// jbdUUID returns the UUID and block size of an external journal, ok false for
// what is none. b is its superblock.
func jbdUUID(b []byte) (uuid [16]byte, blockSize int, ok bool) {
	s := endian.View[ondisk.Super](b)
	if s.Magic.Get() != ondisk.SuperMagic || binary.LittleEndian.Uint32(b[0x60:])&ondisk.IncompatJournalDev == 0 {
		return uuid, 0, false
	}
	if s.LogBlockSize.Get() > 6 {
		return uuid, 0, false
	}
	return s.UUID, 1024 << s.LogBlockSize.Get(), true
}
