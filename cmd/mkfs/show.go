package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// show prints what is going to be made.
func (m *maker) show(r *ext2fs.FormatResult) {
	if m.quiet {
		return
	}
	w, s := m.Stdout, r.Super
	blockSize := 1024 << s.LogBlockSize.Get()
	blocks := uint64(s.BlocksCountHi.Get())<<32 | uint64(s.BlocksCountLo.Get())
	reserved := uint64(s.RBlocksCountHi.Get())<<32 | uint64(s.RBlocksCountLo.Get())
	if m.verbose {
		m.showDetails(w, s, r, blockSize, blocks, reserved)
	} else {
		fmt.Fprintf(w, "Creating filesystem with %d %dk blocks and %d inodes\n", blocks, blockSize>>10, s.InodesCount.Get())
	}
	if r.Groups == 1 {
		fmt.Fprintln(w)
		return
	}
	if s.UUID != [16]byte{} {
		fmt.Fprintf(w, "Filesystem UUID: %s\n", formatUUID(s.UUID))
	}
	fmt.Fprint(w, "Superblock backups stored on blocks: ")
	col := 80
	for i, b := range r.Backups {
		t := fmt.Sprint(b)
		if i > 0 {
			fmt.Fprint(w, ", ")
		}
		if col += len(t) + 2; col > 72 {
			fmt.Fprint(w, "\n\t")
			col = len(t) + 8
		}
		fmt.Fprint(w, t)
	}
	fmt.Fprint(w, "\n\n")
}

func (m *maker) showDetails(w io.Writer, s *ondisk.Super, r *ext2fs.FormatResult, blockSize int, blocks, reserved uint64) {
	log := s.LogBlockSize.Get()
	fmt.Fprintf(w, "Filesystem label=%s\n", strings.TrimRight(string(s.VolumeName[:]), "\x00"))
	fmt.Fprintf(w, "OS type: %s\n", osName(s.CreatorOS.Get()))
	fmt.Fprintf(w, "Block size=%d (log=%d)\n", blockSize, log)
	unit := "fragments"
	if s.HasROCompat(ondisk.ROCompatBigalloc) {
		unit = "clusters"
		fmt.Fprintf(w, "Cluster size=%d (log=%d)\n", 1024<<s.LogClusterSize.Get(), s.LogClusterSize.Get())
	} else {
		fmt.Fprintf(w, "Fragment size=%d (log=%d)\n", blockSize, log)
	}
	fmt.Fprintf(w, "Stride=%d blocks, Stripe width=%d blocks\n", s.RAIDStride.Get(), s.RAIDStripeWidth.Get())
	fmt.Fprintf(w, "%d inodes, %d blocks\n", s.InodesCount.Get(), blocks)
	fmt.Fprintf(w, "%d blocks (%.2f%%) reserved for the super user\n", reserved, 100*float64(reserved)/float64(max(blocks, 1)))
	fmt.Fprintf(w, "First data block=%d\n", s.FirstDataBlock.Get())
	if m.opts.RootUID != 0 || m.opts.RootGID != 0 {
		fmt.Fprintf(w, "Root directory owner=%d:%d\n", m.opts.RootUID, m.opts.RootGID)
	}
	if n := uint64(s.ReservedGDTBlocks.Get()); n != 0 {
		desc := uint64(max(s.DescSz(), ondisk.GroupDescMin))
		perBlock := uint64(blockSize) / desc
		table := (uint64(r.Groups) + perBlock - 1) / perBlock
		fmt.Fprintf(w, "Maximum filesystem blocks=%d\n", (n+table)*perBlock*uint64(s.BlocksPerGroup.Get()))
	}
	fmt.Fprintf(w, "%d block group%s\n", r.Groups, plural(uint64(r.Groups)))
	fmt.Fprintf(w, "%d blocks per group, %d %s per group\n", s.BlocksPerGroup.Get(), s.ClustersPerGroup.Get(), unit)
	fmt.Fprintf(w, "%d inodes per group\n", s.InodesPerGroup.Get())
}

func plural(n uint64) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func osName(os uint32) string {
	names := []string{"Linux", "GNU/Hurd", "Masix", "FreeBSD", "Lites"}
	if int(os) < len(names) {
		return names[os]
	}
	return "(unknown os)"
}

// progress prints the stages as they pass, with counts on a terminal.
type progress struct {
	w        io.Writer
	quiet    bool
	terminal bool
	m        *maker
	stage    ext2fs.Stage
	open     bool // a line is begun
	width    int  // of the count on it
	shown    time.Time
}

func newProgress(m *maker) *progress {
	p := &progress{w: m.Stdout, quiet: m.quiet, m: m, stage: -1}
	if f, ok := m.Stdout.(*os.File); ok && os.Getenv("E2FSPROGS_SKIP_PROGRESS") == "" {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	return p
}

// syncEvery returns after how many groups the device is to be synced while
// inode tables are written.
func syncEvery(m *maker) int {
	if n := envInt("MKE2FS_SYNC"); n > 0 {
		return n
	}
	v, _ := m.conf.Get("options", "sync_kludge")
	n, _ := strconv.Atoi(v)
	return max(n, 0)
}

func (p *progress) step(s ext2fs.Stage, done, total uint64) {
	if p.quiet {
		return
	}
	if s == ext2fs.StageJournalDone {
		return
	}
	if s != p.stage {
		p.finish()
		p.stage, p.open = s, true
		switch s {
		case ext2fs.StageDiscard:
			p.open = p.terminal
			if p.open {
				fmt.Fprint(p.w, "Discarding device blocks: ")
			}
		case ext2fs.StageTables:
			fmt.Fprint(p.w, "Allocating group tables: ")
		case ext2fs.StageInodes:
			fmt.Fprint(p.w, "Writing inode tables: ")
		case ext2fs.StageJournal:
			if p.m.opts.Incompat&ondisk.IncompatJournalDev != 0 {
				fmt.Fprint(p.w, "Zeroing journal device: ")
			} else {
				fmt.Fprintf(p.w, "Creating journal (%d blocks): ", total)
			}
		case ext2fs.StageWrite:
			fmt.Fprint(p.w, "Writing superblocks and filesystem accounting information: ")
		}
	}
	if p.terminal && p.open && total > 0 && s != ext2fs.StageJournal && time.Since(p.shown) > time.Second {
		p.shown = time.Now()
		t := fmt.Sprintf("%*d/%d", len(fmt.Sprint(total)), done, total)
		fmt.Fprint(p.w, strings.Repeat("\b", p.width), t)
		p.width = len(t)
	}
}

// finish ends the line of a stage. The blanks cover a count.
func (p *progress) finish() {
	if !p.open {
		return
	}
	fmt.Fprint(p.w, strings.Repeat("\b", p.width))
	if p.stage == ext2fs.StageJournal {
		fmt.Fprintln(p.w, "done")
	} else {
		fmt.Fprintf(p.w, "%-32s\n", "done")
	}
	p.open, p.width = false, 0
}

func (p *progress) end(ok bool) {
	if p.quiet {
		return
	}
	if ok {
		p.finish()
		fmt.Fprintln(p.w)
	} else if p.open {
		fmt.Fprintln(p.w)
	}
}

// timeUUID returns a UUID of version 1: of the time, and of no network card.
func timeUUID() (u [16]byte) {
	rand.Read(u[8:])
	const epoch = 122192928000000000 // 1582-10-15 to 1970, in units of 100 ns
	t := uint64(time.Now().UnixNano()/100) + epoch
	binary.BigEndian.PutUint32(u[:], uint32(t))
	binary.BigEndian.PutUint16(u[4:], uint16(t>>32))
	binary.BigEndian.PutUint16(u[6:], uint16(t>>48)&0x0fff|0x1000)
	u[8] = u[8]&0x3f | 0x80
	u[10] |= 1 // not the address of a card
	return u
}
