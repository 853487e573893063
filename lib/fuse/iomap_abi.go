package fuse

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/iomap"
)

// IomapABI is one of the two forms of fuse-iomap that exist. They differ in the
// numbers below, and both call themselves minor 99: the user has to say which.
type IomapABI struct {
	Name string

	PureOverwrite, RetryCache, NoCache uint16 // mapping types
	Writeback, Swapfile                uint32 // bits of Opflags

	// ReadENOSYS says that ENOSYS to a direct read makes the kernel read
	// through its page cache. Elsewhere it dereferences a null pointer.
	ReadENOSYS bool
}

// The forms of fuse-iomap: of the patches of May 2026 and of those mailed in
// February 2026.
var (
	IomapMay26 = &IomapABI{Name: "may26", PureOverwrite: 65535, RetryCache: 65534, NoCache: 65533,
		Writeback: 1 << 11, Swapfile: 1 << 31, ReadENOSYS: true}
	IomapV7 = &IomapABI{Name: "v7", PureOverwrite: 255, RetryCache: 254, NoCache: 253,
		Writeback: 1 << 31, Swapfile: 1 << 30}
)

// IomapABIByName returns the form called name.
func IomapABIByName(name string) (*IomapABI, error) {
	for _, a := range []*IomapABI{IomapMay26, IomapV7} {
		if a.Name == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("no such iomap ABI %q: there are may26 and v7", name)
}

// Op returns opflags as an iomap.Op.
func (a *IomapABI) Op(opflags uint32) iomap.Op {
	op := iomap.Op(opflags &^ (a.Writeback | a.Swapfile | uint32(iomap.Writeback|iomap.Swapfile)))
	if opflags&a.Writeback != 0 {
		op |= iomap.Writeback
	}
	if opflags&a.Swapfile != 0 {
		op |= iomap.Swapfile
	}
	return op
}

// Opflags is the reverse of Op.
func (a *IomapABI) Opflags(op iomap.Op) uint32 {
	f := uint32(op &^ (iomap.Writeback | iomap.Swapfile))
	if op&iomap.Writeback != 0 {
		f |= a.Writeback
	}
	if op&iomap.Swapfile != 0 {
		f |= a.Swapfile
	}
	return f
}

// typ returns the number of t.
func (a *IomapABI) typ(t iomap.Type) uint16 {
	switch t {
	case iomap.PureOverwrite:
		return a.PureOverwrite
	case iomap.RetryCache:
		return a.RetryCache
	case iomap.NoCache:
		return a.NoCache
	}
	return uint16(t)
}

// Put stores m as the kernel wants it. base, in bytes, is where the device that
// m speaks of starts on the one that is registered, as dev.
func (a *IomapABI) Put(out *IomapIO, m *iomap.Mapping, base int64, dev uint32) {
	*out = IomapIO{Offset: uint64(m.Offset), Length: uint64(m.Length), Addr: iomap.NullAddr,
		Type: a.typ(m.Type), Flags: uint16(m.Flags)}
	if m.Type.HasAddr() {
		out.Addr, out.Dev = m.Addr+uint64(base), dev
	}
}

// Get is the reverse of Put.
func (a *IomapABI) Get(in *IomapIO, base int64) iomap.Mapping {
	m := iomap.Mapping{Offset: int64(in.Offset), Length: int64(in.Length), Addr: iomap.NullAddr,
		Type: iomap.Type(in.Type), Flags: iomap.Flags(in.Flags)}
	switch in.Type {
	case a.PureOverwrite:
		m.Type = iomap.PureOverwrite
	case a.RetryCache:
		m.Type = iomap.RetryCache
	case a.NoCache:
		m.Type = iomap.NoCache
	}
	if m.Type.HasAddr() {
		m.Addr, m.Dev = in.Addr-uint64(base), iomap.MainDev
	}
	return m
}
