//go:build linux

package main

import (
	"strings"

	"github.com/e2kit/e2kit/lib/fuse"
)

// Ways of file data, the best first.
const (
	pathIomap    = "iomap"
	pathZeroCopy = "io_uring, zero-copy"
	pathIOUring  = "io_uring"
	pathDevFuse  = "/dev/fuse"
)

// served are those that this server has.
var served = map[string]bool{pathDevFuse: true}

// dataPath returns the best way that the kernel and this server have, and for
// each better one why not.
func dataPath(p fuse.Paths) (path string, whyNot []string) {
	for _, w := range []struct {
		path string
		fuse.Finding
	}{{pathIomap, p.Iomap}, {pathZeroCopy, p.ZeroCopy}, {pathIOUring, p.IOUring}} {
		switch {
		case w.Have == fuse.Yes && served[w.path]:
			return w.path, whyNot
		case w.Have == fuse.Yes:
			whyNot = append(whyNot, w.path+": the kernel has it, this fuse2fs does not")
		default:
			whyNot = append(whyNot, w.path+": "+w.Detail)
		}
	}
	return pathDevFuse, whyNot
}

// inForce returns that of a mount that is served, in words.
func inForce(n *fuse.Negotiated) (path, whyNot string) {
	offer := fuse.Offer{Major: fuse.Major, Minor: n.Minor, Flags: n.Offered}
	path, why := dataPath(offer.Paths())
	return path, strings.Join(why, "; ")
}
