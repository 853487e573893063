package ext2fs

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// TestSuperBackup damages superblocks: Open names the backup that C e2fsck
// repairs the image with, and none where there is none, or no ext file system.
func TestSuperBackup(t *testing.T) {
	const mb = 1 << 20
	torn := func(b []byte) { // the second of two sectors is older
		copy(b[512:], make([]byte, 512))
	}
	for _, c := range []struct {
		spec   testfs.Spec
		damage func(b []byte)
		block  ondisk.Fsblk // 0: none is found
		err    error
	}{
		{testfs.Spec{Name: "1k", BlockSize: 1024, Size: 64 * mb}, torn, 8193, ondisk.EBADMSG},
		{testfs.Spec{Name: "2k", BlockSize: 2048, Size: 128 * mb}, torn, 16384, ondisk.EBADMSG},
		{testfs.Spec{Name: "4k", Size: 300 * mb}, torn, 32768, ondisk.EBADMSG},
		{testfs.Spec{Name: "bigalloc", BlockSize: 1024, Cluster: 4096, Features: "bigalloc", Size: 128 * mb}, torn, 32768, ondisk.EBADMSG},
		{testfs.Spec{Name: "without checksums", Features: "^metadata_csum", Size: 300 * mb},
			func(b []byte) { endian.View[ondisk.Super](b).InodesPerGroup.Set(7) }, 32768, ondisk.EUCLEAN},
		{testfs.Spec{Name: "one group", Size: 16 * mb}, torn, 0, ondisk.EBADMSG},
		{testfs.Spec{Name: "no superblock", Size: 300 * mb}, func(b []byte) { clear(b) }, 0, errNotFS},
	} {
		t.Run(c.spec.Name, func(t *testing.T) {
			img := testfs.Mke2fs(t, c.spec)
			dev, err := blockdev.Open(img.Path, blockdev.Options{Direct: blockdev.DirectOff})
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			b := make([]byte, ondisk.SuperSize)
			if _, err := dev.ReadAt(b, ondisk.SuperOffset); err != nil {
				t.Fatal(err)
			}
			good := string(b)
			c.damage(b)
			if _, err := dev.WriteAt(b, ondisk.SuperOffset); err != nil {
				t.Fatal(err)
			}
			_, err = Open(dev, Options{})
			var se *SuperError
			if !errors.Is(err, c.err) || errors.As(err, &se) != (c.block != 0) {
				t.Fatalf("%v", err)
			}
			if se == nil {
				if _, err := dev.WriteAt([]byte(good), ondisk.SuperOffset); err != nil {
					t.Fatal(err)
				}
				return
			}
			if se.Backup != c.block {
				t.Errorf("%v, want block %d", err, c.block)
			}
			// What the message says to do.
			_, args, _ := strings.Cut(err.Error(), "e2fsck ")
			cmd := exec.Command(testfs.Tool(t, "e2fsck"), append(strings.Fields(args), "-fy", img.Path)...)
			if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 1 {
				t.Fatalf("%v\n%s", err, out)
			}
			fs, err := Open(dev, Options{})
			if err != nil {
				t.Fatal(fmt.Errorf("after the repair: %w", err))
			}
			if err := fs.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
