//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// checkTarget refuses a device that is in use, and asks before it overwrites
// what somebody may want.
func (m *maker) checkTarget() error {
	t := &m.target
	if !t.exists {
		return nil
	}
	if err := m.checkMounted(m.device, "file system"); err != nil {
		return err
	}
	if t.size > 0 && int64(m.opts.Blocks)<<m.log > t.size && m.size != "" {
		if t.block {
			return fail("%d blocks of %d bytes are more than %s has (%d bytes): give a smaller size",
				m.opts.Blocks, m.opts.BlockSize, m.device, t.size)
		}
		if m.force == 0 {
			fmt.Fprintf(m.Stdout, "%s: Filesystem larger than apparent device size.\n", m.Prog)
			if err := m.proceed(); err != nil {
				return err
			}
		}
	}
	return m.checkContent()
}

// checkMounted refuses a device that is mounted or swap.
func (m *maker) checkMounted(path, what string) error {
	where, err := mountedOn(path)
	if err != nil {
		return fail("%s: finding out whether it is mounted: %w", path, err)
	}
	if where == "" {
		return nil
	}
	if m.force > 1 {
		m.Warn(fmt.Errorf("%s is %s; a %s is made there all the same, as asked", path, where, what))
		return nil
	}
	return fail("%s is %s; will not make a %s here! (unmount it first)", path, where, what)
}

// checkContent tells what is there, and asks, if someone can answer.
func (m *maker) checkContent() error {
	if m.force > 0 || m.quiet && !m.atTerminal() || m.noAction {
		return nil
	}
	dev, err := blockdev.Open(m.device, blockdev.Options{
		ReadOnly: true, Direct: blockdev.DirectOff, Offset: m.target.offset, Length: m.target.length,
	})
	if err != nil {
		return nil // opening it for writing tells why
	}
	defer dev.Close()
	found := probe(dev)
	if len(found) == 0 {
		return nil
	}
	for _, f := range found {
		f.tell(m.Stdout, m.device)
	}
	if m.atTerminal() {
		return m.proceed()
	}
	return nil
}

func (m *maker) atTerminal() bool {
	out, ok := m.Stdout.(*os.File)
	return ok && m.prompt.Terminal() && term.IsTerminal(int(out.Fd()))
}

// mountedOn says how the device or image at path is in use, by its own mounts
// or those of loop devices over it; "" if it is not.
func mountedOn(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	same := map[string]bool{} // devices, as major:minor, that are the same bytes
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		same[fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))] = true
	} else {
		for _, disk := range loopDevices() {
			dir := loopDir + disk
			b, err := os.ReadFile(dir + "/loop/backing_file")
			if err != nil {
				continue // it was detached meanwhile
			}
			var of unix.Stat_t
			if unix.Stat(strings.TrimSuffix(string(b), "\n"), &of) != nil || of.Ino != st.Ino || of.Dev != st.Dev {
				continue
			}
			for _, d := range append([]string{dir + "/dev"}, glob(dir+"/loop*p*/dev")...) {
				if b, err := os.ReadFile(d); err == nil {
					same[strings.TrimSpace(string(b))] = true
				}
			}
		}
	}
	if len(same) > 0 {
		f, err := os.Open("/proc/self/mountinfo")
		if errors.Is(err, os.ErrNotExist) {
			return "", nil // no /proc: the exclusive open has to tell
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if w := strings.Fields(sc.Text()); len(w) > 4 && same[w[2]] {
				return "mounted", nil
			}
		}
	}
	swaps, _ := os.ReadFile("/proc/swaps")
	for l := range strings.Lines(string(swaps)) {
		w := strings.Fields(l)
		var of unix.Stat_t
		if len(w) == 0 || !strings.HasPrefix(w[0], "/") || unix.Stat(w[0], &of) != nil {
			continue
		}
		if same[fmt.Sprintf("%d:%d", unix.Major(of.Rdev), unix.Minor(of.Rdev))] || of.Ino == st.Ino && of.Dev == st.Dev {
			return "in use as swap", nil
		}
	}
	return "", nil
}

// loopDir is where the system shows loop devices, without the links that all of
// its block devices have in /sys/block.
const loopDir = "/sys/devices/virtual/block/"

// loopDevices returns the names of loop devices that have a file.
func loopDevices() (out []string) {
	d, err := os.Open(loopDir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		var st unix.Stat_t
		if strings.HasPrefix(n, "loop") && unix.Fstatat(int(d.Fd()), n+"/loop", &st, 0) == nil {
			out = append(out, n)
		}
	}
	return out
}

func glob(pattern string) []string {
	m, _ := filepath.Glob(pattern)
	return m
}
