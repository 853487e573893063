package blockdev

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// virtualBlock is where the system shows loop devices, without the links that all
// of its block devices have in /sys/block.
const virtualBlock = "/sys/devices/virtual/block/"

// loopInUse tells whether the kernel uses n bytes from off on of the file that st
// is of: a loop device over it, or a partition of one, is mounted, or is a part of
// another device. What it cannot find out it takes for no.
func loopInUse(st *unix.Stat_t, off, n int64) bool {
	loops, _ := filepath.Glob(virtualBlock + "loop*")
	for _, dir := range loops {
		b, err := os.ReadFile(dir + "/loop/backing_file")
		if err != nil {
			continue // it has no file
		}
		var of unix.Stat_t
		if unix.Stat(strings.TrimSuffix(string(b), "\n"), &of) != nil || of.Ino != st.Ino || of.Dev != st.Dev {
			continue
		}
		start, length := sysNumber(dir+"/loop/offset"), sysNumber(dir+"/loop/sizelimit")
		if length == 0 {
			length = math.MaxInt64 - start
		}
		if start < off+n && off < start+length && heldByKernel(dir) {
			return true
		}
		parts, _ := filepath.Glob(dir + "/loop*p*")
		for _, p := range parts {
			at, length := start+512*sysNumber(p+"/start"), 512*sysNumber(p+"/size")
			if at < off+n && off < at+length && heldByKernel(p) {
				return true
			}
		}
	}
	return false
}

func sysNumber(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// heldByKernel tells whether the device of a directory in sysfs is mounted or a
// part of another.
func heldByKernel(dir string) bool {
	if list, err := os.ReadDir(dir + "/holders"); err == nil && len(list) > 0 {
		return true
	}
	dev, err := os.ReadFile(dir + "/dev")
	if err != nil {
		return false
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if w := strings.Fields(sc.Text()); len(w) > 4 && w[2] == strings.TrimSpace(string(dev)) {
			return true
		}
	}
	return false
}
