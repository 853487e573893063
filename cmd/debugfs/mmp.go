package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFS, request{names: []string{"dump_mmp"}, args: "[block]", help: "show the block of multiple mount protection", needs: needFS, max: 1, run: dumpMMP})
}

// mmpBlock reads the MMP block, at blk or, if that is 0, where the superblock
// says. The bytes may be changed.
func (s *session) mmpBlock(r *ext2fs.Raw, blk ondisk.Fsblk) (ondisk.Fsblk, []byte, *ondisk.MMP, error) {
	sb := r.Super()
	if blk == 0 {
		blk = ondisk.Fsblk(sb.MMPBlock.Get())
	}
	if blk == 0 || !sb.HasIncompat(ondisk.IncompatMMP) && ondisk.Fsblk(sb.MMPBlock.Get()) == 0 {
		return 0, nil, nil, errors.New("the file system has no multiple mount protection")
	}
	b := make([]byte, r.BlockSize())
	if err := r.ReadBlocks(b, blk); err != nil {
		return 0, nil, nil, err
	}
	return blk, b, endian.View[ondisk.MMP](b), nil
}

func cstr(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return cli.Clean(string(b))
}

func dumpMMP(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	var blk ondisk.Fsblk
	if a.word(0) != "" {
		if blk, err = s.parseBlock(a.word(0)); err != nil {
			return err
		}
	}
	blk, _, m, err := s.mmpBlock(r, blk)
	if err != nil {
		return err
	}
	interval := r.Super().MMPInterval.Get()
	bad := m.Verify(r.CsumSeed(), r.HasCsum() && !s.opts.noCsum)
	if s.json {
		return firstError(s.emit(map[string]any{"block": blk, "update_interval": interval, "check_interval": m.CheckInterval.Get(),
			"sequence": fmt.Sprintf("%08x", m.Seq.Get()), "time": m.Time.Get(), "node_name": cstr(m.NodeName[:]),
			"device_name": cstr(m.BdevName[:]), "magic": fmt.Sprintf("0x%x", m.Magic.Get()),
			"checksum": fmt.Sprintf("0x%08x", m.Checksum.Get())}), bad)
	}
	w := s.out
	fmt.Fprintf(w, "block_number: %d\n", blk)
	fmt.Fprintf(w, "update_interval: %d\n", interval)
	fmt.Fprintf(w, "check_interval: %d\n", m.CheckInterval.Get())
	fmt.Fprintf(w, "sequence: %08x\n", m.Seq.Get())
	fmt.Fprintf(w, "time: %d -- %s\n", m.Time.Get(), e2p.Ctime(int64(m.Time.Get()), systemNames().Location))
	fmt.Fprintf(w, "node_name: %s\n", cstr(m.NodeName[:]))
	fmt.Fprintf(w, "device_name: %s\n", cstr(m.BdevName[:]))
	fmt.Fprintf(w, "magic: 0x%x\n", m.Magic.Get())
	fmt.Fprintf(w, "checksum: 0x%08x\n", m.Checksum.Get())
	return bad
}
