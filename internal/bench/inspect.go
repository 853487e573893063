//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/e2kit/e2kit/internal/bench/report"
)

// runInspect takes a tree out of one image, and looks for the names of an inode
// and the owners of a block in another one, all of which the page cache holds.
func runInspect(b *bed) error {
	if b.r.matches(b.st, "rdump") {
		if err := b.rdump(); err != nil {
			return err
		}
	}
	if !b.r.matches(b.st, "ncheck") && !b.r.matches(b.st, "icheck") {
		return nil
	}
	img, err := b.inspected("many", b.sc.inspectFiles, func(int) int { return 100 })
	if err != nil {
		return err
	}
	// The file that was written last is found last.
	if _, err := b.runTool("-R", "stat "+lastFile(b.sc.inspectFiles), img); err != nil {
		return err
	}
	m := regexp.MustCompile(`(?s)Inode: (\d+) .*\(0\):(\d+)`).FindSubmatch(b.said)
	if m == nil {
		return fmt.Errorf("stat of the last file: %q", b.said)
	}
	for _, c := range []struct{ name, request, want string }{
		{"ncheck", "ncheck " + string(m[1]), fmt.Sprintf("%s\t%s\n", m[1], lastFile(b.sc.inspectFiles))},
		{"icheck", "icheck " + string(m[2]), fmt.Sprintf("%s\t%s\n", m[2], m[1])},
	} {
		if !b.r.matches(b.st, c.name) {
			continue
		}
		took, err := b.least(inspectTimes, nil, "-R", c.request, img)
		if err != nil {
			return err
		}
		if !bytes.Contains(b.said, []byte(c.want)) {
			return fmt.Errorf("%s: %q, not %q", c.request, b.said, c.want)
		}
		b.value(c.name, ms(took))
	}
	return nil
}

// inspectTimes is how often in a round a request is made.
const inspectTimes = 7

// rdump takes small files out to a folder, which is then removed.
func (b *bed) rdump() error {
	n := b.sc.populateFiles
	img, err := b.inspected("small", n, smallFile)
	if err != nil {
		return err
	}
	out := filepath.Join(b.r.work, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(out)
	took, err := b.runTool("-R", "rdump / "+out, img)
	if err != nil {
		return err
	}
	found := 0
	err = filepath.WalkDir(out, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			found++
		}
		return err
	})
	if err == nil && found != n {
		err = fmt.Errorf("rdump: %d files came out, not %d: %q", found, n, b.said)
	}
	b.add(b.st.metric("rdump"), report.Sample{Value: float64(n) / took.Seconds(), Seconds: took.Seconds()})
	return err
}

// inspected makes an image of n files, unless it is there. C mke2fs does.
func (b *bed) inspected(name string, n int, size func(i int) int) (string, error) {
	dir := filepath.Join(b.r.work, "source")
	img := filepath.Join(dir, name+".img")
	if _, err := os.Stat(img); err == nil {
		return img, nil
	}
	src := filepath.Join(dir, name)
	total, err := fillSource(src, n, size)
	if err != nil {
		return "", err
	}
	f, err := os.Create(img)
	if err != nil {
		return "", err
	}
	err = errors.Join(f.Truncate(total+int64(n)*4700+256<<20),
		command(b.ctx, "", "mke2fs", append(append([]string{}, makeArgs...), "-N", fmt.Sprint(n+n/8+1000), "-d", src, img)...),
		f.Sync(), // or the disk is still busy with it when others are measured
		f.Close(), os.RemoveAll(src))
	if err != nil {
		os.Remove(img)
	}
	return img, err
}

// lastFile is the path of the last of n files that fillSource makes.
func lastFile(n int) string { return fmt.Sprintf("/dir-%03d/file-%06d", (n-1)/500, n-1) }
