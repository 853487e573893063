//go:build linux

package testfs

import (
	"encoding/binary"
	"fmt"
	"os"
)

// Features of journals.
const (
	jCompatChecksum = 1

	jIncompatRevoke      = 0x1
	jIncompat64Bit       = 0x2
	jIncompatAsyncCommit = 0x4
	jIncompatCsumV2      = 0x8
	jIncompatCsumV3      = 0x10
	jIncompatFastCommit  = 0x20
)

// A JournalSuper is what a test asks of a journal.
type JournalSuper struct {
	Compat, Incompat uint32
	Start, Sequence  uint32
	Log              []byte // all of the journal, with its superblock
	BlockSize        int
	FastCommits      int // blocks set aside for them
}

// JournalSuper reads the journal as C debugfs finds it. It fails where there is
// none.
func (img *Image) JournalSuper() (*JournalSuper, error) {
	var log []byte
	if img.Journal != "" {
		b, err := os.ReadFile(img.Journal)
		if err != nil {
			return nil, err
		}
		bs := max(img.Spec.BlockSize, 1024)
		if img.Spec.BlockSize == 0 {
			bs = 4096
		}
		start := 1 // the device's own superblock comes first
		if bs == 1024 {
			start = 2
		}
		log = b[start*bs:]
	} else {
		tmp, err := os.CreateTemp("", "e2kit-journal-")
		if err != nil {
			return nil, err
		}
		tmp.Close()
		defer os.Remove(tmp.Name())
		tool, err := lookTool("debugfs")
		if err != nil {
			return nil, err
		}
		if err := runQuietly(tool, "-c", "-R", "dump <8> "+tmp.Name(), img.Path); err != nil {
			return nil, err
		}
		if log, err = os.ReadFile(tmp.Name()); err != nil {
			return nil, err
		}
	}
	be := binary.BigEndian
	if len(log) < 1024 || be.Uint32(log) != 0xc03b3998 {
		return nil, fmt.Errorf("no journal")
	}
	return &JournalSuper{
		BlockSize: int(be.Uint32(log[12:])), Sequence: be.Uint32(log[24:]), Start: be.Uint32(log[28:]),
		Compat: be.Uint32(log[36:]), Incompat: be.Uint32(log[40:]), FastCommits: int(be.Uint32(log[84:])), Log: log,
	}, nil
}

// Revokes returns the number of revoke blocks from the log's start on.
func (j *JournalSuper) Revokes() int {
	n := 0
	for off := j.BlockSize; off+12 <= len(j.Log); off += j.BlockSize {
		b := j.Log[off:]
		if binary.BigEndian.Uint32(b) == 0xc03b3998 && binary.BigEndian.Uint32(b[4:]) == 5 &&
			int32(binary.BigEndian.Uint32(b[8:])-j.Sequence) >= 0 {
			n++
		}
	}
	return n
}

// HasFastCommits reports whether the area of fast commits begins with a head.
func (j *JournalSuper) HasFastCommits() bool {
	const fcTagHead = 9
	if j.FastCommits == 0 || j.Incompat&jIncompatFastCommit == 0 {
		return false
	}
	// The kernel leaves the first block of the area unused (j_fc_first is j_last + 1).
	area := j.Log[len(j.Log)-(j.FastCommits-1)*j.BlockSize:]
	return binary.LittleEndian.Uint16(area) == fcTagHead
}
