package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// externalJournal makes the journal on another device that of the file system:
// a path, or LABEL= or UUID= of one.
func (m *maker) externalJournal(name string) error {
	path, err := journalPath(name)
	if err != nil {
		return err
	}
	if err := m.checkMounted(path, "journal"); err != nil {
		return err
	}
	block, rdev, err := statTarget(path)
	if err != nil {
		return fail("journal device %s: %w", path, err)
	}
	dev, err := blockdev.Open(path, blockdev.Options{ReadOnly: true, Direct: blockdev.DirectOff})
	if err != nil {
		return fail("journal device: %w", err)
	}
	defer dev.Close()
	b := make([]byte, ondisk.SuperSize)
	if _, err := dev.ReadAt(b, ondisk.SuperOffset); err != nil {
		return fail("journal device %s: %w", path, err)
	}
	uuid, blockSize, ok := jbdUUID(b)
	switch {
	case !ok:
		return fail("%s is not an external journal; make one there first: mke2fs -O journal_dev -b %d %s", path, m.blockSize, path)
	case blockSize != int(m.blockSize):
		return fail("the journal on %s has blocks of %d bytes, the file system of %d: they must be the same", path, blockSize, m.blockSize)
	case !block:
		return fail("the journal device %s is not a block device", path)
	}
	m.journalDev = path
	m.opts.JournalUUID = &uuid
	m.opts.JournalDev = encodeDev(rdev)
	return nil
}

// journalPath finds a journal by LABEL= or UUID= among the block devices.
func journalPath(name string) (string, error) {
	key, value, ok := strings.Cut(name, "=")
	if !ok || key != "LABEL" && key != "UUID" {
		return name, nil
	}
	for _, sys := range glob("/sys/class/block/*") {
		path := "/dev/" + strings.ReplaceAll(filepath.Base(sys), "!", "/")
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		b := make([]byte, ondisk.SuperSize)
		_, err = f.ReadAt(b, ondisk.SuperOffset)
		f.Close()
		if err != nil {
			continue
		}
		if uuid, _, ok := jbdUUID(b); ok {
			s := endian.View[ondisk.Super](b)
			if key == "UUID" && strings.EqualFold(formatUUID(uuid), value) || key == "LABEL" && text(s.VolumeName[:]) == value {
				return path, nil
			}
		}
	}
	return "", fail("no external journal with %s", name)
}

// joinJournal tells the external journal who uses it.
func (m *maker) joinJournal() error {
	if m.journalDev == "" {
		return nil
	}
	dev, err := blockdev.Open(m.journalDev, blockdev.Options{Direct: blockdev.DirectOff, Exclusive: m.force < 2})
	if err != nil {
		return fail("journal device: %w", err)
	}
	defer dev.Close()
	at := int64(1)
	if m.blockSize == 1024 {
		at = 2
	}
	b := make([]byte, ondisk.SuperSize)
	if _, err := dev.ReadAt(b, at*m.blockSize); err != nil {
		return fail("journal device: %w", err)
	}
	j := endian.View[jbd2.Superblock](b)
	if j.Header.Magic.Get() != jbd2.Magic {
		return fail("journal device %s: its journal superblock is damaged; make it again", m.journalDev)
	}
	n := j.NrUsers.Get()
	if n > uint32(len(j.Users)) {
		return fail("journal device %s: %d users are more than it can have", m.journalDev, n)
	}
	for _, u := range j.Users[:n] {
		if u == m.opts.UUID {
			return nil
		}
	}
	if n == uint32(len(j.Users)) {
		return fail("journal device %s: it has as many users as it can", m.journalDev)
	}
	j.Users[n] = m.opts.UUID
	j.NrUsers.Set(n + 1)
	if j.FeatureIncomp.Get()&(jbd2.IncompatCsumV2|jbd2.IncompatCsumV3) != 0 {
		j.Checksum.Set(0)
		j.Checksum.Set(ondisk.Crc32c(^uint32(0), b))
	}
	if _, err := dev.WriteAt(b, at*m.blockSize); err != nil {
		return fail("journal device: %w", err)
	}
	if err := dev.Sync(); err != nil {
		return fail("journal device: %w", err)
	}
	if !m.quiet {
		fmt.Fprintf(m.Stdout, "Adding journal to device %s: done\n", m.journalDev)
	}
	return nil
}
