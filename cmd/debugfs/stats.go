package main

import (
	"fmt"

	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFS, request{
		names: []string{"show_super_stats", "stats"}, args: "[-h]", help: "show the superblock, and without -h the groups",
		needs: needFS, opts: options("h"), run: stats,
	})
}

func stats(s *session, a *args) error {
	r, err := s.useRaw()
	if err != nil {
		return err
	}
	sb := r.Super()
	if s.json {
		return s.statsJSON(r, a.has("h"))
	}
	if err := e2p.ListSuper(s.out, sb, systemNames()); err != nil {
		return err
	}
	if sb.FeatureROCompat.Get()&ondisk.ROCompatMetadataCsum != 0 {
		if c := ondisk.SuperCsum(sb); c != sb.Checksum.Get() {
			fmt.Fprintf(s.out, "Expected Checksum:        0x%08x\n", c)
		}
	}
	dirs := uint32(0)
	for g := range r.Groups() {
		d, err := r.Desc(g)
		if err != nil {
			return err
		}
		dirs += d.UsedDirs()
	}
	fmt.Fprintf(s.out, "Directories:              %d\n", dirs)
	if a.has("h") {
		return nil
	}
	list := e2p.GroupLister{Out: s.out, Super: sb}
	for g := range r.Groups() {
		d, err := r.Desc(g)
		if err != nil {
			return err
		}
		list.Stats(g, d)
		if s.interrupted() {
			break
		}
	}
	return nil
}

// groupStats is a group as JSON.
type groupStats struct {
	Group       ondisk.Group `json:"group"`
	BlockBitmap ondisk.Fsblk `json:"block_bitmap"`
	InodeBitmap ondisk.Fsblk `json:"inode_bitmap"`
	InodeTable  ondisk.Fsblk `json:"inode_table"`
	FreeBlocks  uint32       `json:"free_blocks"` // clusters with bigalloc
	FreeInodes  uint32       `json:"free_inodes"`
	Dirs        uint32       `json:"directories"`
	Unused      uint32       `json:"unused_inodes"`
	Flags       uint16       `json:"flags"`
	Checksum    uint16       `json:"checksum"`
}

func (s *session) statsJSON(r *ext2fs.Raw, header bool) error {
	sb := r.Super()
	out := map[string]any{
		"features": e2p.FeatureNames(e2p.FeaturesOf(sb)), "uuid": e2p.UUIDString(sb.UUID),
		"volume_name": e2p.Text(sb.VolumeName[:]), "last_mounted": e2p.Text(sb.LastMounted[:]),
	}
	fields := e2p.Fields("s_", sb)
	for i := range fields {
		if f := &fields[i]; f.Len() == 0 && f.Kind != e2p.FieldString && f.Kind != e2p.FieldUUID {
			out[f.Name] = f.Uint()
		}
	}
	groups := []groupStats{}
	for g := range r.Groups() {
		if header || s.interrupted() {
			break
		}
		d, err := r.Desc(g)
		if err != nil {
			return err
		}
		groups = append(groups, groupStats{g, d.BlockBitmap(), d.InodeBitmap(), d.InodeTable(), d.FreeBlocks(), d.FreeInodes(),
			d.UsedDirs(), d.ItableUnused(), d.Lo().Flags.Get(), d.Lo().Checksum.Get()})
	}
	if !header {
		out["groups"] = groups
	}
	return s.emit(out)
}
