package service

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Each message in the bytes that libfuse sends.
func TestWire(t *testing.T) {
	for _, c := range []struct {
		m   Message
		hex string
	}{
		{Message{Magic: HelloCmd, Min: 1, Max: 1, Flags: 3}, "53414654 0001 0001 00000003"},
		{Message{Magic: HelloReply, Min: 1}, "4c415354 0001 0000"},
		{Message{Magic: OpenReply, Text: "argv"}, "46494c45 00000000 6172677600"},
		{Message{Magic: OpenReply, Errno: syscall.EINVAL, Text: "?"}, "46494c45 00000016 3f00"},
		{Message{Magic: SimpleReply, Errno: syscall.EPERM}, "5245504c 00000001"},
		{Message{Magic: OpenCmd, Flags: 0x80002, Mode: 0o600, Request: OpenQuiet, Text: "/x"}, "4f50454e 00080002 00000180 00000001 00000000 2f7800"},
		{Message{Magic: OpenBdevCmd, Flags: 2, BlockSize: 4096, Text: "/x"}, "42444556 00000002 00000000 00000000 00001000 2f7800"},
		{Message{Magic: FsopenCmd, Flags: FsopenFuseblk}, "54595045 00000001"},
		{Message{Magic: SourceCmd, Text: "s"}, "4e414d45 7300"},
		{Message{Magic: MntptCmd, Mode: syscall.S_IFDIR, Text: "/m"}, "4d4e5450 4000 0000 2f6d00"},
		{Message{Magic: MntoptsCmd, Text: "a,b"}, "4f505453 612c6200"},
		{Message{Magic: MtaboptsCmd, Text: "-n"}, "4d544142 2d6e00"},
		{Message{Magic: MountCmd, Flags: syscall.MS_NOSUID}, "444f4954 00000002"},
		{Message{Magic: ByeCmd, Errno: 5}, "42594545 00000005"},
		{Message{Magic: IomapCmd, Mode: IomapMandatory}, "494f4d41 5021 0000"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.m.Encode()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %x, %v; want %x", c.m.Magic, got, err, want)
		}
		back, err := Decode(want)
		if err != nil || *back != c.m {
			t.Errorf("%v: decoded %+v, %v", c.m.Magic, back, err)
		}
		if _, err := Decode(want[:len(want)-1]); err == nil {
			t.Errorf("%v: one byte less is taken", c.m.Magic)
		}
		if _, err := Decode(append(want, 0)); err == nil {
			t.Errorf("%v: one byte more is taken", c.m.Magic)
		}
	}
	if len(magicNames) != len(fixed) {
		t.Error("a message without a name")
	}
}

func TestBadMessages(t *testing.T) {
	for _, s := range []string{
		"", "NAM", "NAME", "NAME\x00", "NAMEab", "NAMEa\x00b\x00", "XXXXabc\x00", "OPENabc\x00", "MNTP\x40\x00\x00\x01/m\x00",
		"LAST\x00\x01\x00\x01", "IOMA\x50\x21\x00\x01", "NAME" + strings.Repeat("a", MaxMessage) + "\x00",
	} {
		var p *ProtoError
		if m, err := Decode([]byte(s)); !errors.As(err, &p) || !errors.Is(err, syscall.EBADMSG) {
			t.Errorf("%.20q: %+v, %v", s, m, err)
		} else if len(s) >= 4 && p.Magic != Magic(be.Uint32([]byte(s))) {
			t.Errorf("%.20q: the error is of %v", s, p.Magic)
		}
	}
	for _, text := range []string{"", "a\x00b", strings.Repeat("a", MaxMessage)} {
		if _, err := (&Message{Magic: SourceCmd, Text: text}).Encode(); err == nil {
			t.Errorf("%.20q is sent", text)
		}
	}
}

// What is taken for a message is one: sent again it is the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("OPEN\x00\x08\x00\x02\x00\x00\x01\x80\x00\x00\x00\x01\x00\x00\x00\x00/x\x00"))
	f.Add([]byte("SAFT\x00\x01\x00\x01\x00\x00\x00\x03"))
	f.Add([]byte("MNTP\x40\x00\x00\x00/m\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is %+v, and that %x, %v", b, m, again, err)
		}
	})
}

func TestArgs(t *testing.T) {
	for _, args := range [][]string{{"ext4"}, {"ext4", "/dev/sda", "/mnt", "-o", "a,b"}, {"ext4", "", "ü"}} {
		b, err := EncodeArgs(args)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeArgs(bytes.NewReader(b))
		if err != nil || !slices.Equal(got, args) {
			t.Errorf("%q: %q, %v", args, got, err)
		}
	}
	// The bytes of libfuse, with a gap before the second string.
	raw := "ARGS\x00\x00\x00\x02\x00\x00\x00\x18\x00\x00\x00\x05\x00\x00\x00\x20\x00\x00\x00\x02ext4\x00???a\x00"
	got, err := DecodeArgs(strings.NewReader(raw))
	if err != nil || !slices.Equal(got, []string{"ext4", "a"}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, s := range []string{
		"", "ARGS", "XRGS\x00\x00\x00\x00", "ARGS\x00\x00\x00\x01", "ARGS\xff\xff\xff\xff",
		"ARGS\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x00x\x00", // no NUL even
		"ARGS\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x02xy",    // no NUL
		"ARGS\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x04x\x00y\x00",
		"ARGS\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x09x\x00",
		"ARGS\x00\x00\x00\x01\xff\xff\xff\xff\x00\x00\x00\x02x\x00",
		"ARGS\x00\x00\x00\x01\x00\x00\x00\x10\xff\xff\xff\xffx\x00",
	} {
		if got, err := DecodeArgs(strings.NewReader(s)); err == nil {
			t.Errorf("%q is taken for %q", s, got)
		}
	}
	if got := helperArgs("ext4", []string{"s", "-t", "fuse.ext4", "m", "-o", "ro", "-t"}); !slices.Equal(got, []string{"ext4", "s", "m", "-o", "ro", "-t"}) {
		t.Errorf("%q", got)
	}
	if got := MergeArgs([]string{"-o", "kernel"}, []string{"ext4", "s", "m"}); !slices.Equal(got, []string{"-o", "kernel", "s", "m"}) {
		t.Errorf("%q", got)
	}
}

func FuzzDecodeArgs(f *testing.F) {
	b, _ := EncodeArgs([]string{"ext4", "/dev/sda", "/mnt"})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		args, err := DecodeArgs(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := EncodeArgs(args)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if back, err := DecodeArgs(bytes.NewReader(again)); err != nil || !slices.Equal(back, args) {
			t.Errorf("%q, then %q, %v", args, back, err)
		}
	})
}

func TestSubtype(t *testing.T) {
	for in, want := range map[string]string{
		"ext4": "ext4", "fuse.ext4": "ext4", "fuseblk.ext4": "ext4", "fuse.fuse.ext4": "fuse.ext4", "a.b": "a.b",
		"": "", "fuse.": "", "a/b": "", "fuse.../x": "", "..": "", "fuse...": "",
	} {
		if got, err := Subtype(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}
