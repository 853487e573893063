// Package endian has integers whose byte order in memory is fixed, and views:
// Go structs of such integers laid over the bytes of a disk block or a message.
//
// A struct made only of these types, of other such structs and of byte arrays
// has alignment 1 and no padding, so it can lie at any address. The bytes stay
// the only copy; the compiler will not take such a field for a number.
//
//	type header struct {
//		Magic endian.LE16
//		Count endian.LE16
//	}
//	h := endian.View[header](block)
//	h.Count.Set(h.Count.Get() + 1) // changes block
//
// The package keeps no state and is safe for concurrent use, as far as the
// bytes themselves are.
package endian

import "encoding/binary"

// LE16 is a little-endian uint16 in memory.
type LE16 [2]byte

// Get returns the value.
func (v *LE16) Get() uint16 { return binary.LittleEndian.Uint16(v[:]) }

// Set stores x.
func (v *LE16) Set(x uint16) { binary.LittleEndian.PutUint16(v[:], x) }

// LE32 is a little-endian uint32 in memory.
type LE32 [4]byte

// Get returns the value.
func (v *LE32) Get() uint32 { return binary.LittleEndian.Uint32(v[:]) }

// Set stores x.
func (v *LE32) Set(x uint32) { binary.LittleEndian.PutUint32(v[:], x) }

// LE64 is a little-endian uint64 in memory.
type LE64 [8]byte

// Get returns the value.
func (v *LE64) Get() uint64 { return binary.LittleEndian.Uint64(v[:]) }

// Set stores x.
func (v *LE64) Set(x uint64) { binary.LittleEndian.PutUint64(v[:], x) }

// BE16 is a big-endian uint16 in memory.
type BE16 [2]byte

// Get returns the value.
func (v *BE16) Get() uint16 { return binary.BigEndian.Uint16(v[:]) }

// Set stores x.
func (v *BE16) Set(x uint16) { binary.BigEndian.PutUint16(v[:], x) }

// BE32 is a big-endian uint32 in memory.
type BE32 [4]byte

// Get returns the value.
func (v *BE32) Get() uint32 { return binary.BigEndian.Uint32(v[:]) }

// Set stores x.
func (v *BE32) Set(x uint32) { binary.BigEndian.PutUint32(v[:], x) }

// BE64 is a big-endian uint64 in memory.
type BE64 [8]byte

// Get returns the value.
func (v *BE64) Get() uint64 { return binary.BigEndian.Uint64(v[:]) }

// Set stores x.
func (v *BE64) Set(x uint64) { binary.BigEndian.PutUint64(v[:], x) }
