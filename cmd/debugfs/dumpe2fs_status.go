package main

import (
	"errors"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs"
)

// Exit statuses of dumpe2fs. Others are those of surveyStatus.
const (
	statusUsage   = 1
	statusInUse   = 1 // with -m: another host has it
	statusUnknown = 2 // with -m: that cannot be told
	statusJournal = 1 // the journal's superblock cannot be listed
)

// surveyStatus are the places of errors in the table of libext2fs, by which its
// programs exit.
var surveyStatus = map[ext2fs.SurveyReason]int{
	ext2fs.ReasonNoImage:         16,
	ext2fs.ReasonNoSuper:         19,
	ext2fs.ReasonRevision:        20,
	ext2fs.ReasonInodeBitmap:     28,
	ext2fs.ReasonBlockBitmap:     30,
	ext2fs.ReasonBlockSize:       34,
	ext2fs.ReasonShort:           36,
	ext2fs.ReasonInode:           41,
	ext2fs.ReasonSuper:           60,
	ext2fs.ReasonFeature:         67,
	ext2fs.ReasonMMPMagic:        138,
	ext2fs.ReasonMMPBlock:        141,
	ext2fs.ReasonDescSize:        145,
	ext2fs.ReasonInodeCsum:       146,
	ext2fs.ReasonInodeBitmapCsum: 147,
	ext2fs.ReasonSuperCsum:       152,
	ext2fs.ReasonCsumType:        153,
	ext2fs.ReasonMMPCsum:         154,
	ext2fs.ReasonBlockBitmapCsum: 156,
	ext2fs.ReasonMap:             174,
}

// exitStatus returns the status for an error: that of libext2fs, or the errno.
func exitStatus(err error) int {
	var e *ext2fs.SurveyError
	if errors.As(err, &e) {
		if n, ok := surveyStatus[e.Reason]; ok {
			return n
		}
	}
	var no syscall.Errno
	if errors.As(err, &no) && no != 0 {
		return max(int(no)&0xff, 1)
	}
	return 1
}
