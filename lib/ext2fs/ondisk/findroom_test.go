package ondisk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestFindRoom holds FindRoom against an entry by entry search, in blocks that
// are well formed and in such that are not.
func TestFindRoom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	slow := func(b, name []byte, size int) (int, bool, bool, error) {
		off := 0
		for off < len(b) {
			e, err := DirentAt(b, off, size)
			if err != nil {
				return off, false, false, err
			}
			used := 0
			if e.Ino != 0 {
				if bytes.Equal(e.Name, name) {
					return off, false, true, nil
				}
				used = DirentSize(len(e.Name))
			}
			if e.RecLen-used >= DirentSize(len(name)) {
				return off, true, false, nil
			}
			off += e.RecLen
		}
		return off, false, false, nil
	}
	anyName := func() []byte { return bytes.Repeat([]byte{byte('a' + rnd.IntN(12))}, 1+9*rnd.IntN(4)) }
	kinds := [4]int{}
	for i := range 20000 {
		size := []int{1024, 4096, 65536}[i%3]
		b := make([]byte, min(size, 1024))
		for off := 0; off < len(b); {
			name := anyName()
			n := DirentSize(len(name))
			if rnd.IntN(40) == 0 {
				n += 4 * rnd.IntN(8)
			}
			if rest := len(b) - off - n; rest < 60 {
				n = len(b) - off
			}
			PutDirent(b, off, n, size, name, Ino(rnd.IntN(60)), 1)
			off += n
		}
		if rnd.IntN(3) == 0 {
			b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
		}
		if rnd.IntN(9) == 0 {
			b = b[:len(b)-rnd.IntN(20)]
		}
		name := anyName()
		off, room, dup, err := FindRoom(b, name, size)
		off2, room2, dup2, err2 := slow(b, name, size)
		if off != off2 || room != room2 || dup != dup2 || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("case %d: %d %v %v %v, want %d %v %v %v", i, off, room, dup, err, off2, room2, dup2, err2)
		}
		switch {
		case err != nil:
			kinds[0]++
		case room:
			kinds[1]++
		case dup:
			kinds[2]++
		default:
			kinds[3]++
		}
	}
	for i, n := range kinds {
		if n < 50 {
			t.Errorf("outcome %d of %v is too rare to be tested", i, kinds)
		}
	}
}
