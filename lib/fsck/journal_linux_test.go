package fsck_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/fsck"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// answers has the answers to some questions; the others are answered yes.
type answers struct {
	recorder
	no map[fsck.Code]bool
}

func (a *answers) Ask(p *fsck.Problem, _ bool) bool { return !a.no[p.Code] }

// replayed counts the transactions of a log.
type replayed struct{}

func (replayed) Check(uint64) error              { return nil }
func (replayed) Write(uint64, []byte) error      { return nil }
func (replayed) FastCommit(uint16, []byte) error { return nil }
func (replayed) Sync() error                     { return nil }

// TestJournalNumbers empties a journal that is not replayed, or not to its end:
// what lies in it must never be replayed after what is written to it later.
func TestJournalNumbers(t *testing.T) {
	const bs, old = 1024, 6 // transactions, of three blocks of the log each
	for _, c := range []struct {
		name  string
		spoil func(log func(block int64) []byte, put func(block int64, b []byte))
		want  fsck.Code
	}{
		{"not wanted", nil, fsck.P0JournalReset},
		{"bad commit", func(log func(int64) []byte, put func(int64, []byte)) {
			b := log(6)
			b[17]++
			put(6, b)
		}, fsck.P0JournalBadCsum},
		{"bad descriptor", func(log func(int64) []byte, put func(int64, []byte)) {
			b := log(4)
			b[700]++
			put(4, b)
		}, 0},
		{"bad superblock", func(log func(int64) []byte, put func(int64, []byte)) {
			b := log(0)
			binary.BigEndian.PutUint32(b[20:], 0) // s_first
			put(0, b)
		}, fsck.P0JournalBadSuper},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := testfs.Mke2fs(t, testfs.Spec{BlockSize: bs, Size: 16 << 20, Journal: "size=1"})
			dev, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			ask := func(request string) (n int64) {
				out := strings.Fields(testfs.Run(t, "debugfs", "-R", request, img.Path))
				if _, err := fmt.Sscan(out[len(out)-1], &n); err != nil {
					t.Fatalf("debugfs %s: %q", request, out)
				}
				return n
			}
			first, free := ask("bmap <8> 0"), ask("ffb")
			if last := ask("bmap <8> 1023"); last != first+1023 {
				t.Fatalf("the journal is not in one piece: %d to %d", first, last)
			}
			cfg := jbd2.Config{
				Dev: dev, BlockSize: bs, Blocks: 1024,
				MapRun: func(l uint32) (uint64, uint32, error) { return uint64(first) + uint64(l), 1024 - l, nil },
			}
			add := func(transactions, blocks int) {
				t.Helper()
				j, err := jbd2.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				a, err := j.Append(jbd2.Features{Incompat: jbd2.IncompatCsumV3})
				if err != nil {
					t.Fatal(err)
				}
				var list []jbd2.LoggedBlock
				for i := range blocks {
					list = append(list, jbd2.LoggedBlock{Home: uint64(free) + uint64(i), Data: bytes.Repeat([]byte{byte(blocks)}, bs)})
				}
				for range transactions {
					if err := a.Write(list, nil, false); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := a.Close(); err != nil {
					t.Fatal(err)
				}
			}
			add(old, 1)
			log := func(block int64) []byte {
				b := make([]byte, bs)
				if _, err := dev.ReadAt(b, (first+block)*bs); err != nil {
					t.Fatal(err)
				}
				return b
			}
			put := func(block int64, b []byte) {
				if _, err := dev.WriteAt(b, (first+block)*bs); err != nil {
					t.Fatal(err)
				}
			}
			if c.spoil != nil {
				testfs.Run(t, "debugfs", "-w", "-R", "feature needs_recovery", img.Path)
				c.spoil(log, put)
			}
			a := &answers{no: map[fsck.Code]bool{fsck.P0JournalRun: true}}
			if _, err := fsck.Check(context.Background(), dev, fsck.Options{Asker: a}); err != nil {
				t.Fatal(err)
			}
			if c.want != 0 && !a.codes()[c.want] {
				t.Errorf("not found: %#x", c.want)
			}
			clean := make([]byte, dev.Size())
			if _, err := dev.ReadAt(clean, 0); err != nil {
				t.Fatal(err)
			}
			for k := 1; k < old; k++ { // up to each old transaction
				add(1, 3*k-2)
				j, err := jbd2.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if st, err := j.Recover(replayed{}); err != nil || st.End-st.Start != 1 {
					t.Errorf("after a transaction of %d blocks %d more are replayed, %v", 3*k, st.End-st.Start-1, err)
				}
				if _, err := dev.WriteAt(clean, 0); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
