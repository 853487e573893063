package iomap

import "fmt"

// Type says what a mapping is.
type Type uint16

// Types of mappings. The last four stand only where their comments say.
const (
	Hole          Type = 0     // nothing allocated, reads as zeros
	Delalloc      Type = 1     // space is promised, without an address
	Mapped        Type = 2     // written data at Addr
	Unwritten     Type = 3     // space at Addr that reads as zeros until an IOEnd
	Inline        Type = 4     // the file system itself moves the bytes: see InlineFile
	PureOverwrite Type = 65535 // write slot: writes go where the read mapping says
	RetryCache    Type = 65534 // answer of a server: look in the mapping cache again
	NoCache       Type = 65533 // cache update of a server: leave this fork alone
)

var typeNames = map[Type]string{Hole: "hole", Delalloc: "delalloc", Mapped: "mapped",
	Unwritten: "unwritten", Inline: "inline", PureOverwrite: "pure-overwrite",
	RetryCache: "retry-cache", NoCache: "nocache"}

// String returns the name of t.
func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// Flags qualify a mapping.
type Flags uint16

// Flags of mappings.
const (
	New         Flags = 1 << iota // blocks are fresh: who writes a part of one must zero the rest
	Dirty                         // metadata that leads to the data is not committed
	Shared                        // other files have the blocks too
	Merged                        // made of several records
	Boundary                      // I/O must not merge with the next mapping
	AnonWrite                     // the device chooses the address; not used
	AtomicBio                     // a write must be issued as one
	WantEnd                       // always call End
	SizeChanged                   // to End only: the size grew
	Stale                         // to End only: the mapping was given up half way
)

// Op says what a mapping is for.
type Op uint32

// Bits of Op. 0 is a plain read.
const (
	Write         Op = 1 << 0
	Zero          Op = 1 << 1 // zero what is written; nothing is allocated
	Report        Op = 1 << 2 // for people: fiemap, seek
	Fault         Op = 1 << 3
	Direct        Op = 1 << 4
	Nowait        Op = 1 << 5
	OverwriteOnly Op = 1 << 6 // a write that must not allocate
	Unshare       Op = 1 << 7
	DAX           Op = 1 << 8
	Atomic        Op = 1 << 9
	DontCache     Op = 1 << 10
	Writeback     Op = 1 << 11
	Swapfile      Op = 1 << 31

	// Writes are the operations whose destination is the write mapping.
	Writes = Write | Zero | Unshare | Writeback | Swapfile
	// Allocates are the operations whose answer must name blocks.
	Allocates = Write | Writeback | Unshare
)

// EndFlags say what a finished write was.
type EndFlags uint32

// Bits of EndFlags.
const (
	EndShared    EndFlags = 1 << iota
	EndUnwritten          // it went to an Unwritten mapping
	EndBoundary
	EndDirect
	EndAppend // it ends beyond the size that the file system knows
	EndWriteback
	EndSwapoff
)

// NullAddr is the address of a mapping that has none.
const NullAddr = ^uint64(0)

// Mapping is a range of a file and where it lies.
type Mapping struct {
	Offset int64  // in the file, a multiple of the block size
	Length int64  // a multiple of the block size, > 0
	Addr   uint64 // on device Dev, or NullAddr
	Type   Type
	Flags  Flags
	Dev    uint32 // 1 is the file system's device, 0 none
}

// MainDev is Mapping.Dev of the file system's own device.
const MainDev = 1

// End returns the offset after the mapping.
func (m *Mapping) End() int64 { return m.Offset + m.Length }

// At returns the device offset of file offset off, which lies in the mapping.
func (m *Mapping) At(off int64) int64 { return int64(m.Addr) + off - m.Offset }

// HasAddr says whether mappings of type t name a device range.
func (t Type) HasAddr() bool { return t == Mapped || t == Unwritten }

// Pair is the answer of Begin: where data is to be read from, and where it is
// to be written. For writes in place the write mapping is PureOverwrite.
type Pair struct {
	Read, Write Mapping
}

// Overwrite makes the write mapping a PureOverwrite of the read mapping.
func (p *Pair) Overwrite() {
	p.Write = Mapping{Offset: p.Read.Offset, Length: p.Read.Length, Addr: NullAddr, Type: PureOverwrite}
}

// Dest returns the mapping that op acts on.
func (p *Pair) Dest(op Op) *Mapping {
	if op&Writes != 0 && p.Write.Type != PureOverwrite {
		return &p.Write
	}
	return &p.Read
}

// IOEnd tells the file system that a write has reached the device.
type IOEnd struct {
	Flags   EndFlags
	Err     error  // of the I/O; then nothing is mapped
	Pos     int64  // in the file
	Written int64  // bytes
	Addr    uint64 // of the written blocks, NullAddr if not told
	Dev     uint32
}

// File is a file's mapping, implemented by the file system.
type File interface {
	// Begin returns the mapping for op at pos, of count bytes or fewer or
	// more; it covers pos. For Write the blocks exist when it returns, and
	// stay where they are until IOEnd or truncation. Errors are errnos: ENOSPC,
	// EDQUOT, EFBIG, EROFS, or of the metadata.
	Begin(op Op, pos, count int64) (Pair, error)
	// End gives up the mapping m that Begin returned for pos and count;
	// written of count bytes were done.
	End(op Op, pos, count, written int64, m Mapping) error
	// IOEnd makes written data part of the file: unwritten blocks become
	// written, and the size reaches the end of the write. It returns the size.
	IOEnd(e IOEnd) (size int64, err error)
}

// InlineFile is a File that moves the bytes of Inline mappings itself. Both
// methods are as those of io.ReaderAt and io.WriterAt.
type InlineFile interface {
	ReadInline(p []byte, off int64) (int, error)
	WriteInline(p []byte, off int64) (int, error)
}

// Device is where the executor moves bytes to and from. Each method does all
// of the range or fails.
type Device interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	ZeroOut(off, n int64) error
}
