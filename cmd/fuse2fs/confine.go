//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/sandbox"
)

// ioctls are those of a server: what a block device is told, and what /dev/fuse
// is asked.
var ioctls = append([]uint32{unix.BLKDISCARD, unix.BLKZEROOUT}, fuse.ServerIoctls...)

// confinement is the sandbox of this server process, and what there is to say
// about it.
type confinement struct {
	off        bool
	missing    []*sandbox.Missing
	namespaces []string // made by the launcher
	uring      bool     // there are io_urings to be used
	tight      bool
}

// confine confines the server for the time until the mount is served, in which
// it needs more than later: the Ioctls, Syscalls and Files of more.
func (o *options) confine(namespaces []string, more sandbox.Options) (*confinement, error) {
	c := &confinement{off: o.Sandbox == "off", namespaces: namespaces, uring: more.Uring}
	defer probeEscapes("confined")
	if c.off {
		return c, nil
	}
	var err error
	c.missing, err = sandbox.Confine(sandbox.Options{
		Ioctls:   slices.Concat(ioctls, more.Ioctls),
		Syscalls: more.Syscalls,
		Files:    more.Files,
		Uring:    more.Uring,
		Memory:   memory(),
		Tighten:  true,
		Kill:     killEscapes,
	})
	if err != nil {
		return nil, fmt.Errorf("confining the server: %w (-o sandbox=off serves without)", err)
	}
	return c, nil
}

// tighten leaves what serving takes. There is nothing to be received any more,
// and the server tells what it has to tell with write(2). It is for the moment
// at which the kernel has sent INIT: a mount by fusermount3 is seen by then, so
// that nothing may be answered first.
func (c *confinement) tighten() error {
	if c.tight {
		return nil
	}
	defer probeEscapes("serving")
	if c.off {
		return nil
	}
	if err := sandbox.Tighten(sandbox.Options{Ioctls: ioctls, Uring: c.uring, Kill: killEscapes}); err != nil {
		return fmt.Errorf("confining the server for good: %w (-o sandbox=off serves without)", err)
	}
	c.tight = true
	return nil
}

// memory returns what the server may have: three quarters of the machine's, so
// that an image may cost its server, and nobody else. It needs far less, but
// what the kernel remembers of a tree the server has to remember too.
func memory() uint64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return max(uint64(si.Totalram)*uint64(si.Unit)/4*3, 1<<30)
}

// warning names all that the kernel lacks, or is "".
func (c *confinement) warning() string {
	if len(c.missing) == 0 {
		return ""
	}
	s := make([]string, len(c.missing))
	for i, m := range c.missing {
		s[i] = m.Error()
	}
	return "this kernel lacks a part of the sandbox, the server runs without it: " + strings.Join(s, "; ")
}

// warnings is warning as a list.
func (c *confinement) warnings() []string {
	if w := c.warning(); w != "" {
		return []string{w}
	}
	return nil
}

// String is for the log.
func (c *confinement) String() string {
	if c.off {
		return "off, as asked for"
	}
	s := "strict"
	if !c.tight {
		s += ", of the start"
	}
	if len(c.namespaces) > 0 {
		s += ", own namespaces " + strings.Join(c.namespaces, " ")
	}
	for _, m := range c.missing {
		s += ", without " + m.Part
	}
	return s
}
