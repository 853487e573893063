package e2p

import (
	"testing"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func TestFields(t *testing.T) {
	var s ondisk.Super
	now := time.Unix(1700000000, 0)
	set := func(name, value string) error {
		f, err := FindField(Fields("s_", &s), name)
		if err != nil {
			return err
		}
		return f.Set(value, now)
	}
	s.FeatureIncompat.Set(ondisk.Incompat64Bit)
	s.RevLevel.Set(1)
	for _, c := range [][2]string{
		{"blocks_count", "0x500000007"}, {"volume_name", "label"}, {"uuid", "6b2f1c0e-5d7a-4c39-9b1e-0a4455667788"},
		{"mtime", "now"}, {"max_mnt_count", "-1"}, {"backup_bgs[1]", "9"}, {"def_hash_version", "tea"}, {"jnl_blocks[16]", "77"},
		{"wtime", "@5000000000"}, {"hash_seed", "00000001-0000-0000-0000-000000000002"}, {"mmp_block", "1099511627776"},
		{"lastcheck", "20200101"}, {"free_blocks_count_hi", "3"}, {"encrypt_algos[2]", "5"}, {"state", "010"},
	} {
		if err := set(c[0], c[1]); err != nil {
			t.Errorf("%s %s: %v", c[0], c[1], err)
		}
	}
	day := time.Date(2020, 1, 1, 0, 0, 0, 0, time.Local).Unix()
	if s.BlocksCount() != 0x500000007 || s.VolumeName[4] != 'l' || s.UUID[15] != 0x88 || s.Mtime.Get() != 1700000000 ||
		s.MaxMntCount.Get() != 0xffff || s.BackupBGs[1].Get() != 9 || s.DefHashVersion[0] != 2 || s.JnlBlocks[16].Get() != 77 ||
		s.WtimeHi[0] != 1 || s.HashSeed[3].Get() != 0x02000000 || s.MMPBlock.Get() != 1<<40 || int64(s.Lastcheck.Get()) != day ||
		s.FreeBlocksHi.Get() != 3 || s.EncryptAlgos[2] != 5 || s.State.Get() != 8 {
		t.Errorf("%+v", s)
	}
	for _, c := range [][2]string{
		{"nothing", "1"}, {"mnt_count", "65536"}, {"mnt_count", "-70000"}, {"mnt_count", "x"}, {"uuid", "x"}, {"jnl_blocks", "1"},
		{"jnl_blocks[17]", "1"}, {"mtime", "yesterday"}, {"reserved", "1"}, {"state", "1_0"},
	} {
		before := s
		if err := set(c[0], c[1]); err == nil || s != before {
			t.Errorf("%s %s: %v", c[0], c[1], err)
		}
	}
	var i ondisk.Inode
	for name, want := range map[string]bool{"uid": true, "uid_hi": true, "uid_lo": true, "size": true, "faddr": true, "block[14]": true,
		"block[15]": false, "file_acl_hi": true, "generation": true, "checksum_lo": false, "checksum": true} {
		if _, err := FindField(Fields("i_", &i), name); (err == nil) != want {
			t.Errorf("inode: %s: %v", name, err)
		}
	}
}
