package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupXattrs,
		request{names: []string{"ea_list"}, args: "file", help: "list the extended attributes of an inode", needs: needFS, min: 1, max: 1, run: eaList},
		request{names: []string{"ea_get"}, args: "[-f outfile] | [-xVC] [-r] file name",
			help:  "show an attribute: -f into a file, -x hexadecimal, -V the value alone, -C as a C string, -r as it is stored",
			needs: needFS, min: 2, max: 2, opts: options("f:rxVC"), run: eaGet},
	)
}

// xattrJSON is an attribute as JSON has it: the value as text if it is any,
// else in base 64.
type xattrJSON struct {
	Name   string     `json:"name"`
	Size   int        `json:"size"`
	Text   *string    `json:"text,omitempty"`
	Base64 string     `json:"base64,omitempty"`
	Inum   ondisk.Ino `json:"value_inum,omitempty"`
	Block  bool       `json:"in_block,omitempty"`
}

func jsonXattr(x *ext2fs.RawXattr) xattrJSON {
	j := xattrJSON{Name: x.Name, Size: x.Size, Inum: x.Inum, Block: x.Block}
	if x.Value != nil {
		if text := string(x.Value); printable(x.Value) {
			j.Text = &text
		} else {
			j.Base64 = base64.StdEncoding.EncodeToString(x.Value)
		}
	}
	return j
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c >= 0x7f {
			return false
		}
	}
	return true
}

// shownValue is the size from which on lists do not show a value.
const shownValue = 40

// showXattrs lists attributes as stat does.
func showXattrs(w io.Writer, list []ext2fs.RawXattr) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "Extended attributes:\n")
	for i := range list {
		x := &list[i]
		fmt.Fprintf(w, "  %s (%d)", cli.Clean(x.Name), x.Size)
		data := x.Index == ondisk.XattrSystemIndex && x.Base == ondisk.XattrSystemData // of the file
		if x.Value != nil && x.Size > 0 && x.Size < shownValue && !data {
			io.WriteString(w, " = ")
			showValue(w, x.Value, false)
		}
		fmt.Fprintln(w)
	}
}

// showValue prints a value as text in quotes if most of it is text, else in
// hexadecimal.
func showValue(w io.Writer, v []byte, hex bool) {
	n := 0
	for _, c := range v {
		if c >= 0x20 && c < 0x7f {
			n++
		}
	}
	if !hex && n > len(v)*7/8 {
		fmt.Fprintf(w, "\"%s\"", cString(v))
		return
	}
	for _, c := range v {
		fmt.Fprintf(w, "%02x ", c)
	}
}

// xattrs returns the inode's attributes, for reading.
func (s *session) xattrs(w string) (*ext2fs.Raw, []ext2fs.RawXattr, error) {
	r, ino, err := s.rawInode(w)
	if err != nil {
		return nil, nil, err
	}
	raw, err := r.Inode(ino)
	if err != nil {
		return nil, nil, err
	}
	list, err := r.Xattrs(ino, raw)
	return r, list, err
}

func eaList(s *session, a *args) error {
	_, list, err := s.xattrs(a.word(0))
	if s.json {
		l := s.list()
		for i := range list {
			_ = l.add(jsonXattr(&list[i])) // of strings and numbers: it cannot fail
		}
		l.end()
		return err
	}
	showXattrs(s.out, list)
	return err
}

func eaGet(s *session, a *args) error {
	r, list, err := s.xattrs(a.word(0))
	name := a.word(1)
	for i := range list {
		x := &list[i]
		if x.Name != name {
			continue
		}
		v, err := r.XattrValue(x)
		if err != nil {
			return err
		}
		if !a.has("r") {
			if v, err = ext2fs.XattrToUser(x.Index, v); err != nil {
				return err
			}
		}
		if p, ok := a.value("f"); ok {
			return os.WriteFile(p, v, 0o666)
		}
		if s.json {
			x.Value = v
			return s.emit(jsonXattr(x))
		}
		s.showNamed(a, name, v)
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s: %w", name, errNoXattr)
	}
	return err
}

// showNamed prints a value in the form that the options of ea_get ask for.
func (s *session) showNamed(a *args, name string, v []byte) {
	if !a.has("V") {
		fmt.Fprintf(s.out, "%s (%d) = ", cli.Clean(name), len(v))
	}
	switch {
	case a.has("C") && !a.has("x"):
		quote := `"`
		if a.has("V") {
			quote = ""
		}
		fmt.Fprintf(s.out, "%s%s%s", quote, cString(v), quote)
	case a.has("x") || !a.has("V"):
		showValue(s.out, v, a.has("x"))
	default:
		s.out.Write(v)
	}
	s.out.WriteByte('\n')
	if !a.has("V") {
		s.out.WriteByte('\n')
	}
}

var errNoXattr = errors.New("there is no such attribute")
