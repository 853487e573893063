package jbd2_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/buffer"
	"github.com/e2kit/e2kit/lib/jbd2"
)

// TestGolden recovers the damaged journals of e2fsprogs' own tests, if they are
// at hand, and ends as its recovery does.
func TestGolden(t *testing.T) {
	dir := testfs.Golden(t)
	for _, c := range []struct {
		name  string
		bsize int
		large bool // and compressed by bzip2
		err   error
		want  jbd2.RecoverStats
	}{
		{name: "j_corrupt_commit_csum", err: buffer.EUCLEAN, want: jbd2.RecoverStats{Start: 3, End: 3, Failed: true}},
		{name: "j_corrupt_commit_tid", want: jbd2.RecoverStats{Start: 3, End: 3}},
		{name: "j_corrupt_descr_tid", want: jbd2.RecoverStats{Start: 3, End: 3}},
		{name: "j_corrupt_journal_block", err: buffer.EBADMSG,
			want: jbd2.RecoverStats{Start: 3, End: 6, Replayed: 4, BadBlocks: 1, BadBlock: 6}},
		{name: "j_corrupt_revoke_block", want: jbd2.RecoverStats{Start: 3, End: 4, Replayed: 2}},
		{name: "j_corrupt_revoke_csum", want: jbd2.RecoverStats{Start: 3, End: 4, Replayed: 2}},
		{name: "j_corrupt_revoke_rcount", bsize: 4096, err: buffer.EUCLEAN, want: jbd2.RecoverStats{Start: 1, End: 2}},
		{name: "j_recover_csum2_32bit", large: true, want: jbd2.RecoverStats{Start: 1, End: 2, Replayed: 6}},
		{name: "j_recover_csum2_64bit", large: true, want: jbd2.RecoverStats{Start: 1, End: 2, Replayed: 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := filepath.Join(dir, c.name, "image.gz")
			if c.large {
				if testing.Short() {
					t.Skip("a large image")
				}
				image = filepath.Join(dir, c.name, "image.bz2")
			}
			path := filepath.Join(testfs.Scratch(t), "image")
			testfs.Unpack(t, image, path)
			img := testfs.Adopt(t, path)
			img.ExpectDirty("only the log is replayed")
			img.Spec.BlockSize = max(c.bsize, 1024)
			m := openImage(t, img)
			j, err := jbd2.Open(m.config())
			if err != nil {
				t.Fatal(err)
			}
			st, err := j.Recover(fsReplayer{m, nil})
			if !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			if st != c.want {
				t.Errorf("got %+v, want %+v", st, c.want)
			}
		})
	}
}
