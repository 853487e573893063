package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// statTarget says whether there is something at path, and which block device it
// is, if it is one.
func statTarget(path string) (block bool, rdev uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, 0, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFBLK, st.Rdev, nil
}

// encodeDev returns a device as a superblock has it.
func encodeDev(rdev uint64) uint32 {
	return unix.Major(rdev)<<8 | unix.Minor(rdev)&0xff | unix.Minor(rdev)&^0xff<<12
}

// sysNumber returns a number that the system tells of a block device; ok is false
// if it does not.
func sysNumber(rdev uint64, name string) (n int64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/%s", unix.Major(rdev), unix.Minor(rdev), name))
	if err != nil {
		return 0, false
	}
	n, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, true
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
