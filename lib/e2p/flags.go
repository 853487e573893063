package e2p

import (
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

const flagNoCOW = 0x00800000 // of btrfs; chattr and lsattr know it

var inodeFlags = []struct {
	bit    uint32
	letter byte
	name   string
}{
	{ondisk.FlagSecrm, 's', "Secure_Deletion"},
	{ondisk.FlagUnrm, 'u', "Undelete"},
	{ondisk.FlagSync, 'S', "Synchronous_Updates"},
	{ondisk.FlagDirsync, 'D', "Synchronous_Directory_Updates"},
	{ondisk.FlagImmutable, 'i', "Immutable"},
	{ondisk.FlagAppend, 'a', "Append_Only"},
	{ondisk.FlagNodump, 'd', "No_Dump"},
	{ondisk.FlagNoatime, 'A', "No_Atime"},
	{ondisk.FlagCompr, 'c', "Compression_Requested"},
	{ondisk.FlagEncrypt, 'E', "Encrypted"},
	{ondisk.FlagJournalData, 'j', "Journaled_Data"},
	{ondisk.FlagIndex, 'I', "Indexed_directory"},
	{ondisk.FlagNotail, 't', "No_Tailmerging"},
	{ondisk.FlagTopdir, 'T', "Top_of_Directory_Hierarchies"},
	{ondisk.FlagExtents, 'e', "Extents"},
	{flagNoCOW, 'C', "No_COW"},
	{ondisk.FlagDAX, 'x', "DAX"},
	{ondisk.FlagCasefold, 'F', "Casefold"},
	{ondisk.FlagInlineData, 'N', "Inline_Data"},
	{ondisk.FlagProjinherit, 'P', "Project_Hierarchy"},
	{ondisk.FlagVerity, 'V', "Verity"},
	{ondisk.FlagNocompr, 'm', "Dont_Compress"},
}

// FlagLetters returns the flags of an inode as lsattr prints them: a letter or
// a dash for each.
func FlagLetters(flags uint32) string {
	b := make([]byte, len(inodeFlags))
	for i, f := range inodeFlags {
		b[i] = '-'
		if flags&f.bit != 0 {
			b[i] = f.letter
		}
	}
	return string(b)
}

// FlagNames returns the flags of an inode as lsattr -l prints them; "---" if
// there is none.
func FlagNames(flags uint32) string {
	var out []string
	for _, f := range inodeFlags {
		if flags&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	if out == nil {
		return "---"
	}
	return strings.Join(out, ", ")
}

// ParseFlagLetters returns the flags that letters, dashes aside, stand for.
func ParseFlagLetters(letters string) (flags uint32, err error) {
next:
	for i := 0; i < len(letters); i++ {
		for _, f := range inodeFlags {
			if f.letter == letters[i] {
				flags |= f.bit
				continue next
			}
		}
		if letters[i] != '-' {
			return 0, fmt.Errorf("unknown flag %q", letters[i])
		}
	}
	return flags, nil
}
