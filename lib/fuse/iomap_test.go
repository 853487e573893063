//go:build linux

package fuse

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/e2kit/e2kit/lib/iomap"
)

// Messages of the protocol, little-endian, as its description gives them.
const (
	beginReq = `48000000 fe0f0000 02000000 00000000 0c000000 00000000 e8030000 e8030000
		92100000 00000000 01000000 00000000 0c000000 00000000 00200000 00000000
		00100000 00000000`
	beginReplyMay = `50000000 00000000 02000000 00000000 00200000 00000000 00000100 00000000
		00000001 00000000 03000200 01000000 00200000 00000000 00000100 00000000
		ffffffff ffffffff ffff0000 00000000`
	beginReplyV7 = `50000000 00000000 02000000 00000000 00200000 00000000 00000100 00000000
		00000001 00000000 03000200 01000000 00200000 00000000 00000100 00000000
		ffffffff ffffffff ff000000 00000000`
	endReq = `70000000 ff0f0000 04000000 00000000 0c000000 00000000 e8030000 e8030000
		92100000 00000000 01000000 00000000 0c000000 00000000 00200000 00000000
		00100000 00000000 00100000 00000000 00200000 00000000 00000100 00000000
		00000001 00000000 03000201 01000000`
	ioendWriteback = `58000000 fd0f0000 06000000 00000000 0c000000 00000000 00000000 00000000
		00000000 00000000 32000000 00000000 0c000000 00000000 00200000 00000000
		00800000 00000000 a00f0000 00000000 01000000 00000000`
	ioendReply  = `18000000 00000000 06000000 00000000 a02f0000 00000000`
	ioendDirect = `58000000 fd0f0000 08000000 00000000 0c000000 00000000 e8030000 e8030000
		92100000 00000000 0a000000 00000000 0c000000 00000000 00000000 00000000
		ffffffff ffffffff 00100000 00000000 00000000 00000000`
	configReq = `68000000 fc0f0000 03000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000 7f000000 00000000 ffffffff ffffff7f 00000400 00000000
		00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000`
	configReply = `78000000 00000000 03000000 00000000 36000000 00000000 00000000 00000000
		00000000 00000000 00000000 00000000 00000000 00000000 00010203 04050607
		08090a0b 0c0d0e0f 10000000 00100000 00000000 01000000 00000080 ffffffff
		ffffff7f 03000000 00f0ffff ff0f0000 00000000 00000000`
	upsertMsg = `60000000 64000000 00000000 00000000 0c000000 00000000 0c000000 00000000
		00000000 00000000 00000100 00000000 00000002 00000000 02000000 01000000
		00000000 00000000 00000100 00000000 ffffffff ffffffff ffff0000 00000000`
	invalMsg = `40000000 65000000 00000000 00000000 0c000000 00000000 0c000000 00000000
		00000000 00000000 ffffffff ffffffff 00000000 00000000 00000000 00000000`
	backingInvalMsg = `28000000 63000000 00000000 00000000 01000000 00000000 00000002 00000000
		00100000 00000000`
	freezeReq = `30000000 f90f0000 0a000000 00000000 02000000 00000000 e8030000 e8030000
		92100000 00000000 00000000 00000000`
)

// scripted is a Device that hands out requests and keeps what it is sent.
type scripted struct {
	in   chan []byte
	out  chan []byte
	ioc  func(req uint32, arg []byte) (int, syscall.Errno)
	fail syscall.Errno // of notifications
}

func (d *scripted) Recv(p []byte) (int, error) {
	m, ok := <-d.in
	if !ok {
		return 0, syscall.ENODEV
	}
	return copy(p, m), nil
}

func (d *scripted) Send(parts ...[]byte) syscall.Errno {
	m := bytes.Join(parts, nil)
	d.out <- m
	if (*OutHeader)(unsafe.Pointer(&m[0])).Unique == 0 {
		return d.fail
	}
	return 0
}

func (d *scripted) Ioctl(req uint32, arg []byte) (int, syscall.Errno) { return d.ioc(req, arg) }
func (d *scripted) Close() error                                      { return nil }

func vector(t *testing.T, v string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the vectors are little-endian")
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(v), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serveScripted starts a connection over a scripted device, which offers iomap.
func serveScripted(t *testing.T, abi *IomapABI, h Handlers) (*scripted, *Conn) {
	t.Helper()
	d := &scripted{in: make(chan []byte), out: make(chan []byte, 1)}
	d.ioc = func(req uint32, arg []byte) (int, syscall.Errno) {
		if req != devIocIomapSupport {
			return 0, syscall.ENOTTY
		}
		arg[0] = IomapFileIO
		return 0, 0
	}
	c, err := NewConnOn(d, Config{Handlers: h, Iomap: abi, MaxPages: 8})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Serve() }()
	t.Cleanup(func() {
		close(d.in)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d, c
}

func (d *scripted) init(t *testing.T, minor uint32, offer InitFlags) InitOut {
	t.Helper()
	offer |= InitExt
	in := InitIn{Major: 7, Minor: minor, Flags: uint32(offer), Flags2: uint32(offer >> 32)}
	h := InHeader{Len: uint32(inHeaderSize + len(bytesOf(&in))), Opcode: OpInit, Unique: 1}
	d.in <- append(bytes.Clone(bytesOf(&h)), bytesOf(&in)...)
	m := <-d.out
	return *(*InitOut)(unsafe.Pointer(&m[outHeaderSize]))
}

func (d *scripted) call(t *testing.T, what, req, reply string) {
	t.Helper()
	d.in <- vector(t, req)
	if got, want := <-d.out, vector(t, reply); !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %x\nwant %x", what, got, want)
	}
}

func TestIomapVectors(t *testing.T) {
	for _, abi := range []*IomapABI{IomapMay26, IomapV7} {
		t.Run(abi.Name, func(t *testing.T) { testIomapVectors(t, abi) })
	}
}

func testIomapVectors(t *testing.T, abi *IomapABI) {
	mapped := iomap.Mapping{Offset: 8192, Length: 65536, Addr: 0x1000000 - 512, Type: iomap.Unwritten, Flags: iomap.Dirty, Dev: iomap.MainDev}
	const base = 512 // of the file system in the device
	h := Handlers{
		OpIomapBegin: func(r *Request) {
			in, ok := In[IomapBeginIn](r)
			if !ok || abi.Op(in.Opflags) != iomap.Write || in.AttrIno != 12 || in.Pos != 8192 || in.Count != 4096 || r.NodeID() != 12 {
				t.Errorf("BEGIN %+v", in)
			}
			p := iomap.Pair{Read: mapped}
			p.Overwrite()
			out := Out[IomapBeginOut](r)
			abi.Put(&out.Read, &p.Read, base, 1)
			abi.Put(&out.Write, &p.Write, base, 1)
			r.Reply(0)
		},
		OpIomapEnd: func(r *Request) {
			in, ok := In[IomapEndIn](r)
			want := mapped
			want.Flags |= iomap.SizeChanged
			if !ok || in.Written != 4096 || in.Count != 4096 || abi.Get(&in.Map, base) != want {
				t.Errorf("END %+v", in)
			}
			r.ReplyErr(0)
		},
		OpIomapIoend: func(r *Request) {
			in, ok := In[IomapIoendIn](r)
			writeback := iomap.EndFlags(in.Flags) == iomap.EndWriteback|iomap.EndUnwritten|iomap.EndAppend &&
				in.Pos == 8192 && in.Written == 4000 && in.Dev == 1 && in.NewAddr == 0x8000
			direct := iomap.EndFlags(in.Flags) == iomap.EndDirect|iomap.EndUnwritten && in.Pos == 0 && in.Written == 4096 && in.Dev == 0 && in.NewAddr == iomap.NullAddr
			if !ok || !writeback && !direct {
				t.Errorf("IOEND %+v", in)
			}
			Out[IomapIoendOut](r).Newsize = 12192
			r.Reply(0)
		},
		OpIomapConfig: func(r *Request) {
			in, ok := In[IomapConfigIn](r)
			if !ok || in.Flags != 0x7f || in.Maxbytes != 1<<63-1 || in.CacheMaxbytes != 262144 {
				t.Errorf("CONFIG %+v", in)
			}
			out := Out[IomapConfigOut](r)
			*out = IomapConfigOut{Flags: ConfigUUID | ConfigBlocksize | ConfigTime | ConfigMaxbytes, UUIDLen: 16, Blocksize: 4096,
				TimeGran: 1, TimeMin: -1 << 31, TimeMax: 15032385535, Maxbytes: (1<<32 - 1) * 4096}
			for i := range out.UUID {
				out.UUID[i] = byte(i)
			}
			r.Reply(0)
		},
		OpFreezeFs: func(r *Request) {
			if in, ok := In[FreezefsIn](r); !ok || in.Unlinked != 0 || r.NodeID() != 2 {
				t.Errorf("FREEZE %+v", in)
			}
			r.ReplyErr(0)
		},
	}
	d, c := serveScripted(t, abi, h)
	if out := d.init(t, IomapMinor, Iomap); out.Minor != IomapMinor || out.Flags2 != uint32(Iomap>>32) || c.Negotiated().Iomap != abi {
		t.Fatalf("INIT answered by %+v", out)
	}
	begin := beginReplyMay
	if abi == IomapV7 {
		begin = beginReplyV7
	}
	d.call(t, "CONFIG", configReq, configReply)
	d.call(t, "BEGIN", beginReq, begin)
	d.call(t, "END", endReq, "10000000 00000000 04000000 00000000")
	d.call(t, "IOEND of writeback", ioendWriteback, ioendReply)
	d.call(t, "IOEND of direct I/O", ioendDirect, strings.Replace(ioendReply, "06000000", "08000000", 1))
	d.call(t, "FREEZE", freezeReq, "10000000 00000000 0a000000 00000000")

	notify := func(what, want string, send func() error) {
		t.Helper()
		for _, d.fail = range []syscall.Errno{0, syscall.ESTALE} {
			done := make(chan error, 1)
			go func() { done <- send() }()
			if got := <-d.out; !bytes.Equal(got, vector(t, want)) {
				t.Errorf("%s:\n got %x\nwant %x", what, got, vector(t, want))
			}
			if err := <-done; d.fail == 0 && err != nil || d.fail != 0 && !errors.Is(err, d.fail) {
				t.Errorf("%s: %v, the kernel said %v", what, err, d.fail)
			}
		}
	}
	if abi == IomapMay26 {
		p := iomap.Pair{Read: iomap.Mapping{Length: 65536, Addr: 0x2000000 - base, Type: iomap.Mapped, Dev: iomap.MainDev}}
		p.Overwrite()
		var o IomapBeginOut
		abi.Put(&o.Read, &p.Read, base, 1)
		abi.Put(&o.Write, &p.Write, base, 1)
		notify("UPSERT", upsertMsg, func() error {
			if e := c.IomapUpsert(12, 12, &o); e != 0 {
				return e
			}
			return nil
		})
	}
	notify("INVAL", invalMsg, func() error { return c.IomapInval(12, 12, 0, -1) })
	notify("BACKING_INVAL", backingInvalMsg, func() error { return c.IomapBackingInval(1, 0x2000000, 4096) })
}

// A kernel without fuse-iomap, which gives its flag another meaning, is never
// taken for one that has it.
func TestIomapDetection(t *testing.T) {
	for _, c := range []struct {
		name    string
		minor   uint32
		offer   InitFlags
		support uint64
		errno   syscall.Errno
		abi     *IomapABI
		want    bool
	}{
		{"iomap", 99, Iomap, IomapFileIO, 0, IomapMay26, true},
		{"buffer pools", 46, Iomap, 0, syscall.ENOTTY, IomapMay26, false},
		{"buffer pools of a later minor", 99, Iomap, 0, syscall.ENOTTY, IomapMay26, false},
		{"ioctl says yes, minor no", 46, Iomap, IomapFileIO, 0, IomapMay26, false},
		{"not offered", 99, 0, IomapFileIO, 0, IomapMay26, false},
		{"not allowed", 99, Iomap, 0, 0, IomapMay26, false},
		{"not wanted", 99, Iomap, IomapFileIO, 0, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, conn := serveScripted(t, c.abi, nil)
			d.ioc = func(req uint32, arg []byte) (int, syscall.Errno) {
				binary.NativeEndian.PutUint64(arg, c.support)
				return 0, c.errno
			}
			out := d.init(t, c.minor, c.offer)
			if got := InitFlags(out.Flags2)<<32&Iomap != 0; got != c.want || (conn.Negotiated().Iomap != nil) != c.want {
				t.Errorf("iomap %v, want %v", got, c.want)
			}
			if want := min(c.minor, Minor); !c.want && out.Minor != want {
				t.Errorf("minor %d, want %d", out.Minor, want)
			}
		})
	}
}

func TestIomapOpflags(t *testing.T) {
	for _, abi := range []*IomapABI{IomapMay26, IomapV7} {
		for bit := range 32 {
			f := uint32(1) << bit
			op := abi.Op(f)
			if f == uint32(iomap.Writeback|iomap.Swapfile)&f && f != abi.Writeback && f != abi.Swapfile {
				if op != 0 {
					t.Errorf("%s: unknown flag %#x is %#x", abi.Name, f, uint32(op))
				}
				continue
			}
			if abi.Opflags(op) != f {
				t.Errorf("%s: flag %#x becomes %#x", abi.Name, f, abi.Opflags(op))
			}
		}
	}
	if IomapV7.Op(1<<31) != iomap.Writeback || IomapMay26.Op(1<<31) != iomap.Swapfile || IomapV7.Op(1<<30) != iomap.Swapfile {
		t.Error("write-back and swap files are confused")
	}
}
