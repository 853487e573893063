package jbd2

import (
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
)

// Magic starts each block that the journal itself writes, and no block that it
// carries for others: in those it is escaped.
const Magic = 0xc03b3998

// Block types, Header.BlockType.
const (
	DescriptorBlock = 1
	CommitBlock     = 2
	SuperblockV1    = 3
	SuperblockV2    = 4
	RevokeBlock     = 5
)

// Features of a version 2 superblock.
const (
	CompatChecksum = 0x1 // commit blocks have a crc32 of the transaction

	IncompatRevoke      = 0x1
	Incompat64Bit       = 0x2
	IncompatAsyncCommit = 0x4 // commit blocks do not wait for what they commit
	IncompatCsumV2      = 0x8
	IncompatCsumV3      = 0x10
	IncompatFastCommit  = 0x20

	knownIncompat = 0x3f
)

// Checksum types.
const (
	ChecksumCRC32  = 1
	ChecksumMD5    = 2
	ChecksumSHA1   = 3
	ChecksumCRC32C = 4
)

// Flags of a block tag.
const (
	TagEscape   = 1 // the block's first four bytes, the magic, are zeroed in the log
	TagSameUUID = 2 // no UUID follows
	TagDeleted  = 4 // unused
	TagLast     = 8 // the last tag of its descriptor block
)

// MinBlocks is the length of the shortest log that can be written to, and
// DefaultFCBlocks the length of the fast commit area where s_num_fc_blks is 0.
const (
	MinBlocks       = 1024
	DefaultFCBlocks = 256
)

// Header starts each block that the journal itself writes.
// Kernel: filesystems/ext4/journal.rst, "Block Header".
type Header struct {
	Magic     endian.BE32 // h_magic
	BlockType endian.BE32 // h_blocktype
	Sequence  endian.BE32 // h_sequence: the transaction's Tid
}

// Superblock is the journal's own superblock, the first 1024 bytes of its block.
// Kernel: filesystems/ext4/journal.rst, "Super Block".
type Superblock struct {
	Header         Header
	BlockSize      endian.BE32     `ext4:"s_blocksize"` // bytes
	MaxLen         endian.BE32     `ext4:"s_maxlen"`    // blocks, fast commit area included
	First          endian.BE32     `ext4:"s_first"`     // first block of the log proper
	Sequence       endian.BE32     `ext4:"s_sequence"`  // Tid expected at Start
	Start          endian.BE32     `ext4:"s_start"`     // first block to recover, 0 if none
	Errno          endian.BE32     `ext4:"s_errno"`     // negative errno, or 0
	FeatureCompat  endian.BE32     `ext4:"s_feature_compat"`
	FeatureIncomp  endian.BE32     `ext4:"s_feature_incompat"`
	FeatureROComp  endian.BE32     `ext4:"s_feature_ro_compat"`
	UUID           [16]byte        `ext4:"s_uuid"`
	NrUsers        endian.BE32     `ext4:"s_nr_users"`
	DynSuper       endian.BE32     `ext4:"s_dynsuper"`
	MaxTransaction endian.BE32     `ext4:"s_max_transaction"`
	MaxTransData   endian.BE32     `ext4:"s_max_trans_data"`
	ChecksumType   byte            `ext4:"s_checksum_type"`
	Padding2       [3]byte         //
	NumFCBlocks    endian.BE32     `ext4:"s_num_fc_blks"` // 0 is DefaultFCBlocks
	Head           endian.BE32     `ext4:"s_head"`
	Padding        [40]endian.BE32 //
	Checksum       endian.BE32     `ext4:"s_checksum"` // crc32c of these 1024 bytes
	Users          [48][16]byte    `ext4:"s_users"`
}

// blockTag describes a logged block, without or with checksum v2.
// Kernel: filesystems/ext4/journal.rst, "Descriptor Block". Only the first 8
// bytes are there in a journal without 64BIT; with checksum v2 two unused bytes
// follow.
type blockTag struct {
	BlockNr     endian.BE32 // t_blocknr
	Checksum    endian.BE16 // t_checksum: low half
	Flags       endian.BE16 // t_flags
	BlockNrHigh endian.BE32 // t_blocknr_high
}

// blockTag3 describes a logged block, with checksum v3.
type blockTag3 struct {
	BlockNr     endian.BE32 // t_blocknr
	Flags       endian.BE32 // t_flags
	BlockNrHigh endian.BE32 // t_blocknr_high
	Checksum    endian.BE32 // t_checksum
}

// RevokeHeader starts a block of revoke records.
// Kernel: filesystems/ext4/journal.rst, "Revocation Block".
type RevokeHeader struct {
	Header Header
	Count  endian.BE32 // r_count: bytes used, of the block
}

// CommitHeader is a commit block.
// Kernel: filesystems/ext4/journal.rst, "Commit Block".
type CommitHeader struct {
	Header       Header
	ChecksumType byte           // h_chksum_type
	ChecksumSize byte           // h_chksum_size: bytes
	Padding      [2]byte        //
	Checksum     [8]endian.BE32 // h_chksum: one is used
	Sec          endian.BE64    // h_commit_sec: since 1970
	Nsec         endian.BE32    // h_commit_nsec
}

const tailBytes = 4 // the checksum that ends descriptor and revoke blocks

var ( // sizes on disk
	_ [12]byte   = [unsafe.Sizeof(Header{})]byte{}
	_ [1024]byte = [unsafe.Sizeof(Superblock{})]byte{}
	_ [12]byte   = [unsafe.Sizeof(blockTag{})]byte{}
	_ [16]byte   = [unsafe.Sizeof(blockTag3{})]byte{}
	_ [16]byte   = [unsafe.Sizeof(RevokeHeader{})]byte{}
	_ [60]byte   = [unsafe.Sizeof(CommitHeader{})]byte{}
	_ [0xfc]byte = [unsafe.Offsetof(Superblock{}.Checksum)]byte{}
)

// Tid is a transaction's number. Numbers wrap: compare them with After.
type Tid uint32

// After tells whether t is later than u.
func (t Tid) After(u Tid) bool { return int32(t-u) > 0 }
