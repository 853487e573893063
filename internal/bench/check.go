//go:build linux

package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/e2kit/e2kit/internal/bench/report"
	"github.com/e2kit/e2kit/lib/blockdev"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// checkImages are what e2fsck is measured on, without a question or a write.
var checkImages = []struct {
	name  string
	full  bool // not in a quick run
	times int  // that it is checked in a round, the least of which counts
	make  func(b *bed, img string) error
}{
	{"fresh 100 GiB", false, 7, func(b *bed, img string) error { return formatImage(b, img, 100<<30) }},
	{"many files", false, 7, func(b *bed, img string) error { return b.tarImage(img, b.sc.checkFiles) }},
	{"million files", true, 3, func(b *bed, img string) error { return b.tarImage(img, millionFiles) }},
	{"fragmented", false, 7, fragmentedImage},
	{"sparse 8 TiB", false, 1, func(b *bed, img string) error { return formatImage(b, img, 8<<40) }},
}

// runCheck checks images that the page cache holds, and others that it does not;
// but for a place without a disk.
func runCheck(b *bed) error {
	for _, c := range checkImages {
		if c.full && b.sc.rounds == 1 || !b.r.matches(b.st, c.name) && !b.r.matches(b.st, c.name+" cold") {
			continue
		}
		img := filepath.Join(b.r.work, "source", strings.ReplaceAll(c.name, " ", "-"))
		if _, err := os.Stat(img); err != nil {
			if err := os.MkdirAll(filepath.Dir(img), 0o755); err != nil {
				return err
			}
			if err := c.make(b, img); err != nil {
				os.Remove(img)
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		peak := b.peak
		b.peak = 0
		if b.r.place.name != "tmpfs" {
			took, err := b.least(1, func() error { return dropImage(img) }, "-fn", img)
			if err != nil {
				return err
			}
			b.value(c.name+" cold", ms(took))
		}
		took, err := b.least(c.times, nil, "-fn", img)
		if err != nil {
			return err
		}
		b.value(c.name, ms(took))
		b.value(c.name+" memory", float64(b.peak)/(1<<20))
		b.peak = max(peak, b.peak)
	}
	return nil
}

// checkMetrics are those of runCheck.
func checkMetrics() (out []report.Metric) {
	for _, c := range checkImages {
		out = append(out, report.Metric{Name: c.name, Unit: "ms", Lower: true, Target: checked},
			report.Metric{Name: c.name + " cold", Unit: "ms", Lower: true, Target: checkedCold},
			report.Metric{Name: c.name + " memory", Unit: "MiB", Lower: true})
	}
	return out
}

// formatImage makes an empty file system, as C mke2fs does, if there are files of
// that size.
func formatImage(b *bed, img string, size int64) error {
	f, err := os.Create(img)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close(), command(b.ctx, "", "mke2fs", append(append([]string{}, makeArgs...), img)...), flush(img))
}

// tarImage makes an image of n files, most of them empty, from an archive, which
// only ours can.
func (b *bed) tarImage(img string, n int) error {
	const perDir = 1000
	archive := img + ".tar"
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer os.Remove(archive)
	buf := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buf)
	for i := range n {
		if i%perDir == 0 {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("dir-%05d/", i/perDir), Mode: 0o755})
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("dir-%05d/file-%07d", i/perDir, i), Mode: 0o644}
		if i%4 == 0 {
			h.Size = 1000
		}
		if err = errors.Join(err, w.WriteHeader(h)); err == nil {
			_, err = w.Write(make([]byte, h.Size))
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(w.Close(), buf.Flush(), f.Close()); err != nil {
		return err
	}
	return errors.Join(command(b.ctx, "", b.r.o.mke2fs.ours, append(append([]string{}, makeArgs...),
		"-N", fmt.Sprint(n+n/8+1000), "-d", archive, img, fmt.Sprint(64+n/50)+"M")...), flush(img))
}

// fragmentedImage makes an image of files with holes between all of their blocks,
// so that their extent trees are deep.
func fragmentedImage(b *bed, img string) error {
	if err := command(b.ctx, "", "mke2fs", append(append([]string{}, makeArgs...), "-O", "^has_journal", img, "12G")...); err != nil {
		return err
	}
	dev, err := blockdev.Open(img, blockdev.Options{Direct: blockdev.DirectOff})
	if err != nil {
		return err
	}
	defer dev.Close()
	fs, err := ext2fs.Open(dev, ext2fs.Options{})
	if err != nil {
		return err
	}
	err = func() error {
		root, err := fs.Iget(ondisk.RootIno)
		if err != nil {
			return err
		}
		defer root.Put()
		const extents, perDir = 1024, 16
		var dir *ext2fs.Inode
		for i := range b.sc.checkExtents / extents {
			if i%perDir == 0 { // folders of the root are spread over the groups
				if dir != nil {
					dir.Put()
				}
				if dir, err = fs.Mkdir(root, fmt.Sprintf("dir-%04d", i/perDir), 0o755, ext2fs.Cred{}); err != nil {
					return err
				}
			}
			f, err := fs.Create(dir, fmt.Sprintf("file-%04d", i), 0o644, 0, ext2fs.Cred{})
			if err != nil {
				return err
			}
			for k := range int64(extents) {
				if err := f.Fallocate(0, k*2*4096, 4096); err != nil {
					f.Put()
					return err
				}
			}
			f.Put()
		}
		if dir != nil {
			dir.Put()
		}
		return nil
	}()
	return errors.Join(err, fs.Close(), flush(img))
}

// flush waits for the disk, which would be busy with the file when others are measured.
func flush(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
