package endian_test

import (
	"bytes"
	"testing"

	"github.com/e2kit/e2kit/lib/endian"
)

type record struct {
	A endian.LE16
	B endian.BE32
	C [3]byte
	D endian.LE64
}

func TestViewIsInPlace(t *testing.T) {
	b := make([]byte, 40)
	r := endian.View[record](b[1:]) // an odd address
	r.A.Set(0x1234)
	r.B.Set(0x01020304)
	r.D.Set(0x1122334455667788)
	want := []byte{0, 0x34, 0x12, 1, 2, 3, 4, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}
	if !bytes.Equal(b[:18], want) {
		t.Fatalf("got % x, want % x", b[:18], want)
	}
	if got := endian.Bytes(r); len(got) != 17 || &got[0] != &b[1] {
		t.Fatalf("Bytes: %d bytes, not in place", len(got))
	}
	rs := endian.Views[record](b, 2)
	rs[1].A.Set(0xffff)
	if b[17] != 0xff || b[18] != 0xff {
		t.Fatal("Views is not in place")
	}
}

func TestViewChecks(t *testing.T) {
	for name, f := range map[string]func(){
		"short":     func() { endian.View[record](make([]byte, 16)) },
		"alignment": func() { endian.View[struct{ X uint32 }](make([]byte, 16)) },
		"count":     func() { endian.Views[record](make([]byte, 33), 2) },
		"negative":  func() { endian.Views[record](make([]byte, 33), -1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			f()
		})
	}
}
