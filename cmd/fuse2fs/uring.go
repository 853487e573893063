//go:build linux

package main

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/fuse"
)

// uring is what a server has for requests to come by io_uring.
type uring struct {
	rings  *fuse.Rings // nil: they come by /dev/fuse
	whyNot string      // if rings is nil
}

// uring makes the rings, if they are wanted and may be of use. The process must
// not be confined yet: after that it can make none.
func (o *options) uring() uring {
	switch {
	case o.NoUring:
		return uring{whyNot: "nouring was asked for"}
	case o.Single:
		return uring{whyNot: "one thread was asked for, and io_uring takes one for each CPU"}
	}
	if err := fuse.UringOff(); err != nil {
		return uring{whyNot: err.Error()}
	}
	rings, err := fuse.NewRings(0)
	if err != nil {
		return uring{whyNot: err.Error()}
	}
	return uring{rings: rings}
}

// files returns how many descriptors it has.
func (u *uring) files() int {
	if u.rings == nil {
		return 0
	}
	return u.rings.Files()
}

// mustUring returns why requests do not come by io_uring, if they are to.
func (o *options) mustUring(n *fuse.Negotiated, u *uring) error {
	if !o.Uring || n.Uring {
		return nil
	}
	return fmt.Errorf("option uring: %s", noUring(n, u.whyNot))
}

// noUring returns why requests come by /dev/fuse.
func noUring(n *fuse.Negotiated, whyNot string) string {
	if n.NoUring != nil {
		return n.NoUring.Error()
	}
	return whyNot
}

// requestPath names the way by which requests come.
func requestPath(n *fuse.Negotiated) string {
	if n.Uring {
		return pathIOUring
	}
	return pathDevFuse
}
