//go:build linux

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	millionFiles = 1_000_000
	millionDir   = 10_000 // files in each folder
)

// millionImage is large enough that its descriptors and bitmaps matter, and
// has a million files.
var millionImage = &template{name: "million", raw: true, size: func(*scale) int64 { return 100 << 30 }, fill: fillMillion,
	args: []string{"-E", "lazy_itable_init=1,nodiscard", "-i", "65536"}}

// hugeImage costs much to mount if anything is read before it is needed.
var hugeImage = &template{name: "8TiB", raw: true, size: func(*scale) int64 { return 8 << 40 },
	args: []string{"-E", "lazy_itable_init=1,nodiscard", "-i", "1048576"}}

func fillMillion(b *bed, dir string) error {
	for d := range millionFiles / millionDir {
		sub := fmt.Sprintf("%s/dir-%03d", dir, d)
		if err := os.Mkdir(sub, 0o755); err != nil {
			return err
		}
		for i := range millionDir {
			if err := unix.Mknod(fmt.Sprintf("%s/file-%05d", sub, i), unix.S_IFREG|0o644, 0); err != nil {
				return err
			}
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func runMillion(b *bed) error {
	buf := make([]byte, 64<<10)
	var st unix.Stat_t
	err := steps(
		b.cold,
		b.doing("walk cold", func() (work, error) {
			n := 0
			for d := range millionFiles / millionDir {
				got, err := list(b, b.path(fmt.Sprintf("dir-%03d", d)), buf, func(dirfd int, name string) error {
					return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
				})
				if err != nil {
					return work{}, err
				}
				n += got
			}
			if n != millionFiles {
				return work{}, fmt.Errorf("%d files, not %d", n, millionFiles)
			}
			return work{units: float64(n)}, nil
		}),
		b.unmount,
	)
	b.rss(err)
	return err
}

func runHuge(b *bed) error {
	err := steps(
		func() error { return dropImage(b.image) },
		b.doing("mount", func() (work, error) { return work{}, b.mount() }),
		func() error {
			_, err := list(b, b.dir, make([]byte, 4096), nil)
			return err
		},
		b.unmount,
	)
	b.rss(err)
	return err
}

// rss records the server's peak memory, if there is a server.
func (b *bed) rss(err error) {
	if err == nil && b.s.path != "" {
		b.value("peak RSS", float64(b.peak)/(1<<20))
	}
}
