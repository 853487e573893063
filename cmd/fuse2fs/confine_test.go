//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/lib/fuse"
	"github.com/e2kit/e2kit/lib/sandbox"
)

// All that a kernel lacks is one line.
func TestWarning(t *testing.T) {
	c := &confinement{}
	if w := c.warning(); w != "" {
		t.Errorf("nothing is missing: %q", w)
	}
	c.missing = []*sandbox.Missing{{Part: "Landlock", Err: errors.New("the kernel has ABI 3, without TCP (ABI 4)")}, {Part: "MDWE", Err: unix.EINVAL}}
	w := c.warning()
	if strings.Contains(w, "\n") || !strings.Contains(w, "Landlock: the kernel has ABI 3") || !strings.Contains(w, "MDWE: invalid argument") {
		t.Errorf("%q", w)
	}
	if s := c.String(); s != "strict, of the start, without Landlock, without MDWE" {
		t.Errorf("%q", s)
	}
	c = &confinement{tight: true, namespaces: []string{"user", "net"}}
	if s := c.String(); s != "strict, own namespaces user net" {
		t.Errorf("%q", s)
	}
}

func TestMemory(t *testing.T) {
	if m := memory(); m < 1<<30 || m > 1<<50 {
		t.Errorf("%d bytes", m)
	}
}

func TestDataPath(t *testing.T) {
	yes, no := fuse.Finding{Have: fuse.Yes, Detail: "offered"}, fuse.Finding{Have: fuse.No, Detail: "not here"}
	defer func(old map[string]bool) { served = old }(served)
	served = map[string]bool{pathDevFuse: true, pathIOUring: true}
	for _, c := range []struct {
		paths fuse.Paths
		want  string
		why   []string
	}{
		{fuse.Paths{Iomap: no, ZeroCopy: no, IOUring: no}, pathDevFuse, []string{"iomap: not here", "io_uring, zero-copy: not here", "io_uring: not here"}},
		{fuse.Paths{Iomap: yes, ZeroCopy: no, IOUring: yes}, pathIOUring, []string{"iomap: the kernel has it, this fuse2fs does not", "io_uring, zero-copy: not here"}},
	} {
		got, why := dataPath(c.paths)
		if got != c.want || strings.Join(why, "\n") != strings.Join(c.why, "\n") {
			t.Errorf("%+v: %s, %q", c.paths, got, why)
		}
	}
}
