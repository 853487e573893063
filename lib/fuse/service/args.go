package service

import (
	"fmt"
	"io"
	"strings"
)

// The file of arguments: this word, the number of arguments, then position and
// length of each; a length counts the NUL that ends the argument.
const argsMagic = 0x41524753 // ARGS

// Bounds of what is believed: the kernel has others for a command line, but
// mounting takes a handful.
const (
	maxArgs     = 256
	maxArgsSize = MaxMessage // all strings together
)

// EncodeArgs returns the file of arguments.
func EncodeArgs(args []string) ([]byte, error) {
	if len(args) > maxArgs {
		return nil, fmt.Errorf("fuse service: %d arguments", len(args))
	}
	b := be.AppendUint32(nil, argsMagic)
	b = be.AppendUint32(b, uint32(len(args)))
	pos := len(b) + 8*len(args)
	var text []byte
	for _, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return nil, fmt.Errorf("fuse service: a NUL in argument %q", a)
		}
		b = be.AppendUint32(b, uint32(pos+len(text)))
		b = be.AppendUint32(b, uint32(len(a)+1))
		text = append(append(text, a...), 0)
	}
	if len(text) > maxArgsSize {
		return nil, fmt.Errorf("fuse service: arguments of %d bytes", len(text))
	}
	return append(b, text...), nil
}

// DecodeArgs reads a file of arguments, which may have gaps.
func DecodeArgs(r io.ReaderAt) ([]string, error) {
	fail := func(format string, args ...any) ([]string, error) {
		return nil, &ProtoError{0, "arguments: " + fmt.Sprintf(format, args...)}
	}
	var head [8]byte
	if got, err := r.ReadAt(head[:], 0); got < len(head) {
		return fail("%v", err)
	}
	if be.Uint32(head[:]) != argsMagic {
		return fail("begin with %#x", be.Uint32(head[:]))
	}
	n := be.Uint32(head[4:])
	if n > maxArgs {
		return fail("%d of them", n)
	}
	table := make([]byte, 8*n)
	if got, err := r.ReadAt(table, 8); got < len(table) {
		return fail("table: %v", err)
	}
	args, left := make([]string, 0, n), uint32(maxArgsSize)
	for i := range int(n) {
		pos, size := be.Uint32(table[8*i:]), be.Uint32(table[8*i+4:])
		if size < 1 || size > left {
			return fail("number %d has %d bytes", i, size)
		}
		left -= size
		s := make([]byte, size)
		if got, err := r.ReadAt(s, int64(pos)); got < len(s) {
			return fail("number %d: %v", i, err)
		}
		if strings.IndexByte(string(s), 0) != len(s)-1 {
			return fail("number %d is not one string that ends with NUL", i)
		}
		args = append(args, string(s[:len(s)-1]))
	}
	return args, nil
}

// helperArgs returns what the helper's own arguments become for the server: the
// type in the place of the program, and no -t.
func helperArgs(typ string, args []string) []string {
	out := []string{typ}
	for i := 0; i < len(args); i++ {
		if args[i] == "-t" && i+1 < len(args) {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

// MergeArgs returns the command line of a server, without the program's name:
// own, that of its unit, then what the helper sent after the type.
func MergeArgs(own, helper []string) []string {
	out := append([]string(nil), own...)
	if len(helper) > 1 {
		out = append(out, helper[1:]...)
	}
	return out
}

// Subtype returns the name of the service that type, as mount(8) has it, asks
// for: "ext4" for ext4, fuse.ext4 and fuseblk.ext4. It fails for what cannot be
// a file name.
func Subtype(typ string) (string, error) {
	s := typ
	for _, p := range []string{"fuse.", "fuseblk."} {
		if rest, ok := strings.CutPrefix(typ, p); ok {
			s = rest
			break
		}
	}
	if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
		return "", fmt.Errorf("%q is no file system type", typ)
	}
	return s, nil
}
