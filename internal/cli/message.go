package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/e2kit/e2kit/lib/e2p"
)

// Exit statuses of fsck(8), which add up.
const (
	FsckOK          = 0
	FsckFixed       = 1   // errors were corrected
	FsckReboot      = 2   // and the system should be rebooted
	FsckUncorrected = 4   // errors are left
	FsckError       = 8   // the check itself failed
	FsckUsage       = 16  // wrong command line
	FsckCancelled   = 32  // by the user
	FsckLibrary     = 128 // an error of a shared library
)

// Message prints "prog: what: why" on a line of its own. Control characters of
// names are shown escaped, so that a hostile name cannot drive the terminal.
func Message(w io.Writer, prog string, err error) {
	fmt.Fprintf(w, "%s: %s\n", prog, Clean(text(err)))
}

// text returns the message of err without the call that package os puts before
// a path: the path says more.
func text(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) && error(p) == err {
		return p.Path + ": " + p.Err.Error()
	}
	return err.Error()
}

// Clean returns s with control characters and newlines escaped.
func Clean(s string) string { return e2p.Clean(s) }
