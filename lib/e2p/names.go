package e2p

import (
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// nameOf returns names[i], or unknown followed by i.
func nameOf(names []string, i int, unknown string) string {
	if i >= 0 && i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s%d", unknown, i)
}

var hashNames = []string{"legacy", "half_md4", "tea"}

// HashName returns the name of a directory hash, as a superblock has it
// (Super.DefHashVersion); HASHALG_9 and its like where there is none.
func HashName(version byte) string { return nameOf(hashNames, int(version), "HASHALG_") }

// OSName returns the name of the system that made a file system
// (Super.CreatorOS).
func OSName(os uint32) string {
	names := []string{
		ondisk.OSLinux: "Linux", ondisk.OSHurd: "Hurd", ondisk.OSMasix: "Masix",
		ondisk.OSFreeBSD: "FreeBSD", ondisk.OSLites: "Lites",
	}
	if uint64(os) < uint64(len(names)) {
		return names[os]
	}
	return "(unknown os)"
}

// errcodes are the codes of s_first_error_errcode and s_last_error_errcode.
var errcodes = []string{
	"", "UNKNOWN", "EIO", "ENOMEM", "EFSBADCRC", "EFSCORRUPTED", "ENOSPC", "ENOKEY", "EROFS", "EFBIG",
	"EEXIST", "ERANGE", "EOVERFLOW", "EBUSY", "ENOTDIR", "ENOTEMPTY", "ESHUTDOWN", "EFAULT",
}

// ErrcodeName returns the name of an error that the superblock remembers, as
// e2fsprogs names it.
func ErrcodeName(code byte) string { return nameOf(errcodes, int(code), "UNKNOWN_ERRCODE_") }

const encodingUTF8 = 1 // utf8-12.1

// ParseEncoding returns the number of a character encoding of names.
func ParseEncoding(name string) (uint16, error) {
	if name == "utf8" || name == "utf8-12.1" {
		return encodingUTF8, nil
	}
	return 0, fmt.Errorf("encoding %q is not known: there is utf8", name)
}

// EncodingName returns the name of the encoding of file names
// (Super.Encoding).
func EncodingName(encoding uint16) string {
	if encoding == encodingUTF8 {
		return "utf8-12.1"
	}
	return fmt.Sprintf("UNKNOWN_ENCODING_%d", encoding)
}

// ErrorsName returns what is done about an inconsistency (Super.Errors).
func ErrorsName(policy uint16) string {
	switch policy {
	case ondisk.ErrorsContinue:
		return "Continue"
	case ondisk.ErrorsRO:
		return "Remount read-only"
	case ondisk.ErrorsPanic:
		return "Panic"
	}
	return "Unknown (continue)"
}

// StateName returns the state of a file system (Super.State).
func StateName(state uint16) string {
	s := "clean"
	if state&ondisk.StateValid == 0 {
		s = "not clean"
	}
	if state&ondisk.StateError != 0 {
		s += " with errors"
	}
	return s
}

// superFlags are the names of Super.Flags, each followed by a space.
func superFlags(flags uint32) string {
	var s strings.Builder
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{ondisk.SuperFlagSignedHash, "signed_directory_hash "},
		{ondisk.SuperFlagUnsignedHash, "unsigned_directory_hash "},
		{ondisk.SuperFlagTestFS, "test_filesystem "},
	} {
		if flags&f.bit != 0 {
			s.WriteString(f.name)
		}
	}
	if s.Len() == 0 {
		return "(none)"
	}
	return s.String()
}

// UUIDString returns a UUID as people write it.
func UUIDString(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// Text returns the bytes of a field up to the first NUL.
func Text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
