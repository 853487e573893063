package iomappeer

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"syscall"
	"testing"
)

// vectors are the messages of the protocol's description, as they lie in the
// memory of a little-endian machine.
var vectors = map[string]string{
	"V1": `48000000 fe0f0000 02000000 00000000 0c000000 00000000 e8030000 e8030000
		92100000 00000000 01000000 00000000 0c000000 00000000 00200000 00000000
		00100000 00000000`,
	"V2": `50000000 00000000 02000000 00000000 00200000 00000000 00000100 00000000
		00000001 00000000 03000200 01000000 00200000 00000000 00000100 00000000
		ffffffff ffffffff ffff0000 00000000`,
	"V3": `50000000 00000000 02000000 00000000 00200000 00000000 00000100 00000000
		00000001 00000000 03000200 01000000 00200000 00000000 00000100 00000000
		ffffffff ffffffff ff000000 00000000`,
	"V4": `70000000 ff0f0000 04000000 00000000 0c000000 00000000 e8030000 e8030000
		92100000 00000000 01000000 00000000 0c000000 00000000 00200000 00000000
		00100000 00000000 00100000 00000000 00200000 00000000 00000100 00000000
		00000001 00000000 03000201 01000000`,
	"V5": `58000000 fd0f0000 06000000 00000000 0c000000 00000000 00000000 00000000
		00000000 00000000 32000000 00000000 0c000000 00000000 00200000 00000000
		00800000 00000000 a00f0000 00000000 01000000 00000000`,
	"V6": `18000000 00000000 06000000 00000000 a02f0000 00000000`,
	"V7": `58000000 fd0f0000 08000000 00000000 0c000000 00000000 e8030000 e8030000
		92100000 00000000 0a000000 00000000 0c000000 00000000 00000000 00000000
		ffffffff ffffffff 00100000 00000000 00000000 00000000`,
	"V8": `68000000 fc0f0000 03000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000 7f000000 00000000 ffffffff ffffff7f 00000400 00000000
		00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000`,
	"V9": `78000000 00000000 03000000 00000000 36000000 00000000 00000000 00000000
		00000000 00000000 00000000 00000000 00000000 00000000 00010203 04050607
		08090a0b 0c0d0e0f 10000000 00100000 00000000 01000000 00000080 ffffffff
		ffffff7f 03000000 00f0ffff ff0f0000 00000000 00000000`,
	"V10": `60000000 64000000 00000000 00000000 0c000000 00000000 0c000000 00000000
		00000000 00000000 00000100 00000000 00000002 00000000 02000000 01000000
		00000000 00000000 00000100 00000000 ffffffff ffffffff ffff0000 00000000`,
	"V11": `40000000 65000000 00000000 00000000 0c000000 00000000 0c000000 00000000
		00000000 00000000 ffffffff ffffffff 00000000 00000000 00000000 00000000`,
	"V12": `28000000 63000000 00000000 00000000 01000000 00000000 00000002 00000000
		00100000 00000000`,
	"V13": `30000000 f90f0000 0a000000 00000000 02000000 00000000 e8030000 e8030000
		92100000 00000000 00000000 00000000`,
}

func vector(t testing.TB, name string) []byte {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the vectors are of a little-endian machine")
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(vectors[name]), ""))
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint32(b); int(n) != len(b) {
		t.Fatalf("%s has %d bytes and says %d", name, len(b), n)
	}
	return b
}

// TestRequestVectors compares what the peer sends with the vectors.
func TestRequestVectors(t *testing.T) {
	user := Cred{1000, 1000, 0x1092}
	unwritten := Mapping{Offset: 8192, Length: 65536, Addr: 0x1000000, Type: TypeUnwritten, Flags: FlagDirty | FlagSizeChanged, Dev: 1}
	config := configIn{Flags: configAll, MaxBytes: maxLFS, CacheMaxbytes: 262144}
	for _, v := range []struct {
		name   string
		op     uint32
		unique uint64
		node   uint64
		cred   Cred
		body   any
	}{
		{"V1", opIomapBegin, 2, 12, user, beginIn{Opflags: May26.opToWire(OpWrite), AttrIno: 12, Pos: 8192, Count: 4096}},
		{"V4", opIomapEnd, 4, 12, user, endIn{Opflags: May26.opToWire(OpWrite), AttrIno: 12, Pos: 8192, Count: 4096, Written: 4096,
			Map: May26.encMapping(unwritten)}},
		{"V5", opIomapIOEnd, 6, 12, Cred{}, ioendIn{Flags: IOEndWriteback | IOEndUnwritten | IOEndAppend, AttrIno: 12, Pos: 8192,
			NewAddr: 0x1000000 / 512, Written: 4000, Dev: 1}},
		{"V7", opIomapIOEnd, 8, 12, user, ioendIn{Flags: IOEndDirect | IOEndUnwritten, AttrIno: 12, NewAddr: nullAddr, Written: 4096}},
		{"V8", opIomapConfig, 3, 0, Cred{}, config},
		{"V13", opFreezeFS, 10, 2, user, uint64(0)},
	} {
		k := New(Config{})
		r := &request{op: v.op, unique: v.unique, node: v.node}
		if errno := k.post(&task{cred: v.cred}, r, v.body); errno != 0 {
			t.Fatal(errno)
		}
		if want := vector(t, v.name); !bytes.Equal(r.msg, want) {
			t.Errorf("%s is\n%x, want\n%x", v.name, r.msg, want)
		}
		buf := make([]byte, minRead)
		n, err := k.Device().Recv(buf)
		if err != nil || !bytes.Equal(buf[:n], r.msg) {
			t.Errorf("%s is received as %x, %v", v.name, buf[:n], err)
		}
	}
}

// TestReplyVectors feeds the peer the vectors that a server sends.
func TestReplyVectors(t *testing.T) {
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	for _, v := range []struct {
		name string
		prof Profile
	}{{"V2", May26}, {"V3", V7}} {
		k := New(Config{Profile: v.prof})
		k.devs[1] = &backing{id: 1, size: 1 << 30}
		in := &Inode{k: k, nodeid: 12, attrIno: 12, iomap: true}
		in.init()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s, _, errno := in.ask(k.task("write"), OpWrite, 8192, 4096, 0)
			check("errno", errno, syscall.Errno(0))
			if errno != 0 {
				return
			}
			check("mapping", s.dst, Mapping{8192, 65536, 0x1000000, TypeUnwritten, FlagDirty, 1})
			check("source", s.hasSrc, false)
			check("count", s.count, int64(4096))
		}()
		k.Device().Recv(make([]byte, minRead))
		check("verdict", k.Device().Send(vector(t, v.name)), syscall.Errno(0))
		<-done
		if err := k.Err(); err != nil {
			t.Error(err)
		}
		// The other profile's number is no mapping type.
		other := May26 + V7 - v.prof
		var out beginOut
		dec(vector(t, v.name)[outHeaderSize:], &out)
		other.decMapping(&out.Write)
		check("type in the other profile", out.Write.Type, uint16(typeUnknown))
	}

	k := New(Config{})
	k.iomap, k.mayIomap = true, true
	k.devs[1] = &backing{id: 1, size: 1 << 30}
	in := &Inode{k: k, nodeid: 12, attrIno: 12, iomap: true}
	in.init()
	k.inodes[12] = in
	cache := k.PageCached(newMemDev(1 << 20))
	check("UPSERT", k.send(vector(t, "V10")), syscall.Errno(0))
	dst, _, _, hit, cookie := in.cache.lookup(May26, OpWrite, 5000)
	check("hit", hit, true)
	check("mapping", dst, Mapping{0, 65536, 0x2000000, TypeMapped, 0, 1})
	check("write fork", in.cache.hasWrite, false)
	check("valid", in.cache.valid(cookie), true)
	check("INVAL", k.send(vector(t, "V11")), syscall.Errno(0))
	_, _, _, hit, _ = in.cache.lookup(May26, OpWrite, 5000)
	check("hit after INVAL", hit, false)
	check("valid after INVAL", in.cache.valid(cookie), false)
	check("BACKING_INVAL", k.send(vector(t, "V12")), syscall.Errno(0))
	_ = cache

	var io ioendOut
	dec(vector(t, "V6")[outHeaderSize:], &io)
	check("newsize", io.NewSize, uint64(12192))
	check("IOEND reply encoded", string(enc(outHeader{24, 0, 6}, io)), string(vector(t, "V6")))

	// V9 through the mount's own path.
	k = New(Config{})
	k.iomap = true
	errs := make(chan error, 1)
	go func() { errs <- k.config(k.task("mount")) }()
	buf := make([]byte, minRead)
	k.Device().Recv(buf)
	var h inHeader
	dec(buf, &h)
	reply := vector(t, "V9")
	native.PutUint64(reply[8:], h.Unique)
	check("CONFIG verdict", k.send(reply), syscall.Errno(0))
	if err := <-errs; err != nil {
		t.Error(err)
	}
	check("block size", k.bs, int64(4096))
	check("maxbytes", k.maxbytes, int64((1<<32-1)*4096))
	check("granularity", k.timeGran, uint32(1))
	for _, err := range []error{k.Err()} {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestProfileNumbers checks the numbers in which the profiles differ.
func TestProfileNumbers(t *testing.T) {
	for _, v := range []struct {
		p              Profile
		pure, retry, n uint16
		wb, swap       uint32
		swapIsWrite    bool
	}{{May26, 65535, 65534, 65533, 1 << 11, 1 << 31, true}, {V7, 255, 254, 253, 1 << 31, 1 << 30, false}} {
		if v.p.toWire(TypePureOverwrite) != v.pure || v.p.toWire(TypeRetryCache) != v.retry || v.p.toWire(TypeNoCache) != v.n {
			t.Errorf("%v: types", v.p)
		}
		if v.p.opToWire(OpWriteback) != v.wb || v.p.opToWire(OpSwapfile|OpReport) != v.swap|4 {
			t.Errorf("%v: operation flags", v.p)
		}
		if v.p.opFromWire(v.wb) != OpWriteback || v.p.isWrite(OpSwapfile) != v.swapIsWrite {
			t.Errorf("%v: operation flags back", v.p)
		}
		for typ := range typeNames {
			if typ == typeUnknown || v.p == V7 && typ >= TypeUnwrittenStripe && typ <= TypeMappedStripe {
				continue
			}
			if got := v.p.fromWire(v.p.toWire(typ)); got != typ {
				t.Errorf("%v: type %d comes back as %d", v.p, typ, got)
			}
		}
	}
}

// TestSizes checks the sizes of structures against the protocol's.
func TestSizes(t *testing.T) {
	for _, v := range []struct {
		v    any
		want int
	}{
		{inHeader{}, 40}, {outHeader{}, 16}, {Mapping{}, 32}, {beginIn{}, 32}, {beginOut{}, 64}, {endIn{}, 72}, {ioendIn{}, 48},
		{ioendOut{}, 8}, {configIn{}, 64}, {configOut{}, 104}, {backingInvalOut{}, 24}, {invalOut{}, 48}, {upsertOut{}, 80},
		{backingMap{}, 16}, {iomapSupport{}, 16}, {backingInfo{}, 8}, {initIn{}, 64}, {initOut{}, 64}, {Attr{}, 88},
		{entryOut{}, 128}, {attrOut{}, 104}, {setattrIn{}, 88}, {statxIn{}, 24}, {statxOut{}, 288}, {Statx{}, 256}, {Statfs{}, 80},
		{readIn{}, 40}, {writeIn{}, 40}, {fallocateIn{}, 32}, {copyRangeIn{}, 56}, {ioctlIn{}, 32}, {ioctlOut{}, 16}, {dirent{}, 24},
	} {
		if got := size(v.v); got != v.want {
			t.Errorf("%T has %d bytes, want %d", v.v, got, v.want)
		}
	}
}
