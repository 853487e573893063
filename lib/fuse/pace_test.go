//go:build linux

package fuse

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Run("waits", func(t *testing.T) {
		for _, c := range []struct {
			lone, calm bool
			most       int // that are measured of a hundred
		}{{false, false, 100}, {false, true, 50}, {true, true, 100/glanceLone + 1}} {
			var p pacer
			stands, measured := 0, 0
			for range 100 {
				if n := p.measures(c.lone, c.calm); n > 0 {
					stands, measured = stands+n, measured+1
				}
			}
			if measured > c.most {
				t.Errorf("%+v: measures %d of 100", c, measured)
			}
			if stands+p.since != 100 {
				t.Errorf("%+v: they stand for %d, and %d are left", c, stands, p.since)
			}
		}
	})
	t.Run("more clients", func(t *testing.T) {
		var p pacer
		p.measures(true, true)
		if n := p.measures(false, false); n != 2 {
			t.Errorf("the first wait after a lone client's stands for %d, want 2", n)
		}
	})
	t.Run("yield", func(t *testing.T) {
		var p pacer
		for at, want := range map[time.Duration]time.Duration{yieldAfter - 1: 0, yieldAfter: yieldAfter} {
			p.yields = 0
			if p.yield(at); p.yields != want {
				t.Errorf("after %v it has yielded at %v", at, p.yields)
			}
		}
	})
}
