//go:build linux

package fuse

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Negotiated is what INIT agreed on.
type Negotiated struct {
	Minor        uint32    // of the kernel
	Offered      InitFlags // by the kernel
	Flags        InitFlags // offered and wanted
	MaxWrite     uint32    // bytes
	MaxPages     uint16    // pages of the host in any request
	MaxReadahead uint32    // bytes; an upper bound, see [Mount.Tune]
	Iomap        *IomapABI // if fuse-iomap is in force
	Uring        bool      // requests come by io_uring
	NoUring      error     // why not, though rings were made
}

// MaxPagesLimit returns fs.fuse.max_pages_limit: the largest request, in pages,
// that the kernel will send. It was 256 before it was configurable.
func MaxPagesLimit() int {
	b, err := os.ReadFile(MaxPagesPath)
	if err != nil {
		return defaultMaxPages
	}
	return ParseMaxPages(b)
}

// MaxPagesPath is the file of fs.fuse.max_pages_limit.
const MaxPagesPath = "/proc/sys/fs/fuse/max_pages_limit"

const defaultMaxPages = 256

// ParseMaxPages is MaxPagesLimit for what MaxPagesPath has in it.
func ParseMaxPages(b []byte) int {
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 1 || n > 65535 {
		return defaultMaxPages
	}
	return n
}

// offersIomap says whether fuse-iomap is wanted and to be had. The flag alone
// means something else to other kernels.
func (c *Conn) offersIomap(n *Negotiated) bool {
	if c.cfg.Iomap == nil || n.Minor < IomapMinor || n.Offered&Iomap == 0 {
		return false
	}
	var s IomapSupported
	if _, err := c.ioctl(devIocIomapSupport, bytesOf(&s)); err != nil {
		return false
	}
	return s.Flags&IomapFileIO != 0
}

// offersUring says whether requests are to come by io_uring. There is no way back
// from that.
func (c *Conn) offersUring(n *Negotiated) {
	switch {
	case c.uring == nil:
		n.NoUring = c.noUring
	case n.Offered&OverIOUring == 0:
		n.NoUring = errUringOff
		c.closeUring()
	default:
		if n.NoUring = c.uring.start(); n.NoUring != nil {
			c.closeUring()
			return
		}
		n.Uring = true
		n.Flags |= OverIOUring
	}
}

// serveInit answers INIT and returns why the connection cannot be used, if so.
func (c *Conn) serveInit(r *Request) error {
	in, ok := In[InitIn](r)
	if !ok {
		// Before 7.36 the message ended with Flags.
		short, ok := In[[4]uint32](r)
		if !ok {
			r.ReplyErr(syscall.EPROTO)
			return fmt.Errorf("fuse: INIT of %d bytes: %w", r.hdr.Len, syscall.EPROTO)
		}
		in = &InitIn{Major: short[0], Minor: short[1], MaxReadahead: short[2], Flags: short[3] &^ uint32(InitExt)}
	}
	if in.Major > Major {
		// The kernel is to ask again with our major.
		out := Out[InitOut](r)
		out.Major, out.Minor = Major, Minor
		r.Reply(0)
		return nil
	}
	if in.Major < Major || in.Minor < MinMinor {
		r.ReplyErr(syscall.EPROTO)
		return fmt.Errorf("fuse: the kernel speaks protocol %d.%d, at least %d.%d is needed: %w",
			in.Major, in.Minor, Major, MinMinor, syscall.EPROTO)
	}

	n := Negotiated{Minor: in.Minor, Offered: in.AllFlags()}
	n.Flags = n.Offered & c.cfg.Flags
	if n.Offered&InitExt != 0 {
		n.Flags |= InitExt
	}
	n.Flags |= n.Offered & (MaxPages | BigWrites)
	minor := min(in.Minor, Minor)
	if c.offersIomap(&n) {
		n.Iomap = c.cfg.Iomap
		n.Flags |= Iomap
		minor = IomapMinor
	}
	c.offersUring(&n)
	n.MaxPages = 32
	if n.Flags&MaxPages != 0 {
		n.MaxPages = uint16(c.cfg.MaxPages)
	}
	n.MaxWrite = min(uint32(c.cfg.MaxWrite), uint32(int(n.MaxPages)*hostPage))
	// Not limited to what the kernel offers: the kernel takes the lesser
	// itself, of what its bdi has by then.
	n.MaxReadahead = uint32(c.cfg.MaxReadahead)

	out := Out[InitOut](r)
	*out = InitOut{
		Major:               Major,
		Minor:               minor,
		MaxReadahead:        n.MaxReadahead,
		MaxBackground:       uint16(c.cfg.MaxBackground),
		CongestionThreshold: uint16(c.cfg.MaxBackground * 3 / 4),
		MaxWrite:            n.MaxWrite,
		TimeGran:            c.cfg.TimeGran,
		MaxPages:            n.MaxPages,
		Flags:               uint32(n.Flags),
		Flags2:              uint32(n.Flags >> 32),
	}
	if c.cfg.Init != nil {
		if err := c.cfg.Init(in, out); err != nil {
			c.closeUring()
			r.ReplyErr(syscall.EPROTO)
			return err
		}
		n.Flags = InitFlags(out.Flags) | InitFlags(out.Flags2)<<32
		n.MaxWrite, n.MaxPages, n.MaxReadahead = out.MaxWrite, out.MaxPages, out.MaxReadahead
	}
	c.negotiated.Store(&n)
	// The kernel sends nothing else before it has the answer.
	if err := r.Reply(0); err != nil {
		return fmt.Errorf("fuse: INIT refused: %w", err)
	}
	close(c.ready)
	if n.Uring && n.Iomap == nil {
		c.uring.begin()
	}
	return nil
}
