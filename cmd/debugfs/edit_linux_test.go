package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// sameEdits are edits, and requests by which C debugfs shows what they leave.
var sameEdits = [][2]string{
	{"ssv s_mnt_count 5; ssv uuid null; ssv volume_name abc; ssv s_state 0; ssv lastcheck 20200102; ssv mkfs_time @5", "stats -h"},
	{"ssv feature_compat 0x3c; ssv r_blocks_count 77; ssv kbytes_written 123456789012; ssv first_error_func abc", "stats -h"},
	{"ssv hash_seed 6b2f1c0e-5d7a-4c39-9b1e-0a4455667788; ssv def_hash_version tea; ssv encoding utf8; ssv mount_opts acl", "stats -h"},
	{"ssv jnl_blocks[3] 5; ssv encrypt_algos[1] 4; ssv checksum_type 1; ssv journal_uuid clear; ssv def_hash_version 1", "stats -h"},
	{"sif a/x mode 0100644; sif a/x i_uid 5; sif a/x gid 70000; sif a/x size 0x10000000000; sif a/x atime 20200101; sif a/x ctime @1000000000; sif a/x dtime 7; sif a/x blocks 99", "stat a/x"},
	{"sif a/x flags 0x80010; sif a/x version 77; sif a/x generation 99; sif a/x file_acl 500; sif a/x faddr 4; sif a/x extra_isize 28; sif a/x crtime 20210203040506", "stat a/x"},
	{"sif a/x block[0] 0x1234; sif a/x block[IND] 77", "idump -b a/x"},
	{"sif data bmap[3] 9000; sif data bmap[500] 9001", "bmap data 3; bmap data 500"},
	{"sif a/x mtime_extra 5; sif a/x ctime_lo 5; sif a/x uid_hi 1; sif a/x size_hi 2; sif a/x i_blocks_hi 1; sif a/x checksum 0x12345", "stat a/x"},
	{"set_bg 0 block_bitmap 99; set_bg 0 inode_table 100; set_bg 1 free_blocks_count 5; set_bg 1 flags 4; set_bg 1 checksum calc; set_bg 2 bg_used_dirs_count 9", "stats"},
	{"setb 20000; setb 20010 5; freeb 20000; freeb 20011 2; seti <100>; seti <200> 5; freei <100>", "testb 20009 8; testi <100>; testi <201>"},
	{"copy_inode a/x <200>", "stat <200>"},
	{"zap -f data -p 7 2; zap -f data -b 3 3; zap -o 10 -l 5 -p 0x42 20000; zap -b 9 20001", "bd -f data 2; bd -f data 3; bd 20000; bd 20001"},
	{`ea_set a/z user.b "q\nz\x41\101\\"; ea_set a/z user.mix "abc\001\002defghijkl"; ea_set a/z user.39 123456789012345678901234567890123456789; ea_set a/z user.40 1234567890123456789012345678901234567890; ea_rm a/z trusted.bin`,
		"ea_list a/z; ea_get -C a/z user.b; ea_get -V a/z user.b; ea_get -V -C a/z user.b; ea_get -x a/z user.b; ea_get a/z user.mix"},
	{"fallocate a/x 5 20; punch a/x 7 9; punch a/x 15", "ex a/x"}, // behind the end
	{"punch data 5 9; punch data 20", "ex data"},
	{"sif frag size 0", "ex -n frag"},
}

// TestSameEdits has C debugfs and ours make the same edits of copies.
func TestSameEdits(t *testing.T) {
	testfs.NeedRoot(t)
	img := sample(t, testfs.Spec{Name: "ext4", BlockSize: 1024})
	file := filepath.Join(testfs.Scratch(t), "requests")
	for _, c := range sameEdits {
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(c[0], "; ", "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		theirs, ours := img.Copy(t), img.Copy(t)
		theirs.ExpectDirty("it is edited")
		ours.ExpectDirty("it is edited")
		cDebugfs(t, "-w", "-f", file, theirs.Path)
		if status, _, errs := debugfs("-w", "-f", file, ours.Path); status != 0 {
			t.Errorf("%s: %s", c[0], errs)
		}
		for _, show := range strings.Split(c[1], "; ") {
			want, got := cDebugfs(t, "-R", show, theirs.Path), cDebugfs(t, "-R", show, ours.Path)
			if want, got := untimed(want), untimed(got); want != got {
				t.Errorf("%s: %s: %s", c[0], show, firstDifference(got, want))
			}
			if _, again, _ := debugfs("-R", show, ours.Path); !strings.HasPrefix(show, "stats") && got != "" && again != got {
				t.Errorf("%s: %s: shown as %s", c[0], show, firstDifference(again, got))
			}
		}
	}
}

// untimed takes what depends on when something was written from a listing.
func untimed(s string) string {
	var out []string
	for _, l := range strings.Split(s, "\n") {
		if !strings.HasPrefix(l, "Last write time:") && !strings.HasPrefix(l, "Checksum:") {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}
