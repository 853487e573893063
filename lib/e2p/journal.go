package e2p

import (
	"bufio"
	"fmt"
	"io"
	"math/bits"

	"github.com/e2kit/e2kit/lib/jbd2"
)

// journalFeatures are the features of journals that have a name, by class.
var journalFeatures = [classes]map[uint32]string{
	Compat: {jbd2.CompatChecksum: "journal_checksum"},
	Incompat: {
		jbd2.IncompatRevoke: "journal_incompat_revoke", jbd2.Incompat64Bit: "journal_64bit",
		jbd2.IncompatAsyncCommit: "journal_async_commit", jbd2.IncompatCsumV2: "journal_checksum_v2",
		jbd2.IncompatCsumV3: "journal_checksum_v3",
	},
}

// JournalFeatureNames lists the features of a journal as e2fsprogs does, where
// that of fast commits has no name but FEATURE_I5; "(none)" if there is none.
func JournalFeatureNames(sb *jbd2.Superblock) string {
	out := ""
	for c, w := range [classes]uint32{
		Compat: sb.FeatureCompat.Get(), Incompat: sb.FeatureIncomp.Get(), ROCompat: sb.FeatureROComp.Get(),
	} {
		for ; w != 0; w &= w - 1 {
			name, ok := journalFeatures[c][w&-w]
			if !ok {
				name = fmt.Sprintf("%s%d", unnamed[c], bits.TrailingZeros32(w))
			}
			if out != "" {
				out += " "
			}
			out += name
		}
	}
	if out == "" {
		return "(none)"
	}
	return out
}

// ListJournal writes what the superblock of a journal says, as dumpe2fs and
// logdump -S do. blockSize is the file system's, fastCommit whether that has
// the feature. Nothing of it is taken on trust: any bytes are listed.
func ListJournal(w io.Writer, sb *jbd2.Superblock, blockSize int, fastCommit bool) error {
	l := lister{bufio.NewWriter(w)}
	l.value("Journal features", "%s", JournalFeatureNames(sb))
	total, fc := sb.MaxLen.Get(), uint32(0)
	if fastCommit {
		if fc = sb.NumFCBlocks.Get(); fc == 0 {
			fc = jbd2.DefaultFCBlocks
		}
	}
	if kb := sb.BlockSize.Get() / 1024 * total; kb < 8192 {
		l.value("Total journal size", "%dk", kb)
	} else {
		l.value("Total journal size", "%dM", kb>>10)
	}
	if n := sb.BlockSize.Get(); n != uint32(blockSize) {
		l.value("Journal block size", "%d", n)
	}
	l.value("Total journal blocks", "%d", total)
	l.value("Max transaction length", "%d", total-fc)
	l.value("Fast commit length", "%d", fc)
	if n := sb.First.Get(); n != 1 {
		l.value("Journal first block", "%d", n)
	}
	l.value("Journal sequence", "0x%08x", sb.Sequence.Get())
	l.value("Journal start", "%d", sb.Start.Get())
	users := sb.NrUsers.Get()
	if users != 1 {
		l.value("Journal number of users", "%d", users)
	}
	if sb.FeatureCompat.Get()&jbd2.CompatChecksum != 0 {
		l.value("Journal checksum type", "crc32")
	}
	if sb.FeatureIncomp.Get()&(jbd2.IncompatCsumV2|jbd2.IncompatCsumV3) != 0 {
		kind := "unknown"
		if sb.ChecksumType == jbd2.ChecksumCRC32C {
			kind = "crc32c"
		}
		l.value("Journal checksum type", "%s", kind)
		l.value("Journal checksum", "0x%08x", sb.Checksum.Get())
	}
	if users > 1 || sb.Users[0] != [16]byte{} {
		label := "Journal users:"
		for _, u := range sb.Users[:min(users, uint32(len(sb.Users)))] {
			fmt.Fprintf(l, "%-26s%s\n", label, uuidOrNone(u))
			label = ""
		}
	}
	if e := sb.Errno.Get(); e != 0 {
		l.value("Journal errno", "%d", int32(e))
	}
	return l.Flush()
}
