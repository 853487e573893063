//go:build linux

package main

import (
	"strings"

	"github.com/e2kit/e2kit/lib/fuse"
)

// Ways of file data, the best first. The last two are also those of requests.
const (
	pathIomap    = "iomap"
	pathZeroCopy = "io_uring, zero-copy"
	pathIOUring  = "io_uring"
	pathDevFuse  = "/dev/fuse"
)

// served are those that this server has.
var served = map[string]bool{pathDevFuse: true, pathIOUring: true, pathIomap: true}

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

// inForce returns that of a mount that is served, in words. noIomap is why it was
// not asked for fuse-iomap, and withoutUring why not for io_uring, if it was not.
func inForce(n *fuse.Negotiated, noIomap, withoutUring string) (path, whyNot string) {
	if n.Iomap != nil {
		return pathIomap, ""
	}
	offer := fuse.Offer{Major: fuse.Major, Minor: n.Minor, Flags: n.Offered}
	paths := offer.Paths()
	if paths.Iomap.Have == fuse.Yes {
		if noIomap == "" {
			noIomap = "the kernel does not allow it to this mount"
		}
		paths.Iomap = fuse.Finding{Have: fuse.No, Detail: noIomap}
	}
	if !n.Uring {
		paths.IOUring = fuse.Finding{Have: fuse.No, Detail: noUring(n, withoutUring)}
	}
	path, why := dataPath(paths)
	return path, strings.Join(why, "; ")
}
