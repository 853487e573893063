//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Rings are the io_urings by which requests may come instead of through reads of
// /dev/fuse. They are made before a process confines itself, since they are what
// it should be least able to make: each is restricted to commands to the one
// descriptor of /dev/fuse that [NewConn] gives it.
//
// The kernel queues a request on the CPU where it was made, with the requests of
// that CPU. Each thread that serves has a ring of its own, with a place for one
// request, and belongs to one CPU; how many there are is what can be served at
// a time of what one CPU asks.
type Rings struct {
	online   []int // CPUs with rings of their own
	offline  []int // CPUs that may come: they share one ring, the last
	depth    int   // rings for each CPU that is online
	maxPages int   // in a request
	rings    []*ring
}

const (
	// ringMemory is what requests may be, in all rings at a time, in bytes, as
	// long as there are ringDepthMin for each CPU. It exists only as far as
	// there have been as many, and as large ones, at a time.
	ringMemory   = 64 << 20
	ringDepthMin = 2
	ringDepthMax = 16

	// ringCq bounds how many requests one thread has taken and not answered.
	ringCq = 64
)

// The CPUs that there may ever be, and that there are.
const (
	possibleCPUs = "/sys/devices/system/cpu/possible"
	onlineCPUs   = "/sys/devices/system/cpu/online"
)

// UringPath is the file of fuse.enable_uring, by which an administrator lets
// requests come by io_uring.
const UringPath = "/sys/module/fuse/parameters/enable_uring"

// errUringOff is why they do not.
var errUringOff = errors.New("fuse.enable_uring is off")

// UringOff returns why the kernel cannot offer io_uring, if that can be seen. It
// returns nil also where it cannot.
func UringOff() error {
	b, err := os.ReadFile(UringPath)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Stat("/sys/module/fuse"); err == nil {
			return errors.New("not in this kernel; Linux 6.14 with CONFIG_FUSE_IO_URING has it")
		}
	case err == nil && !isOn(string(b)):
		return errUringOff
	}
	return nil
}

// isOn reads a boolean parameter of a module.
func isOn(v string) bool {
	v = strings.TrimSpace(v)
	return v == "Y" || v == "1"
}

// NewRings makes rings for a connection whose requests have up to maxPages pages;
// 0 is [MaxPagesLimit]. Who does not give them to NewConn closes them.
func NewRings(maxPages int) (*Rings, error) {
	if maxPages <= 0 {
		maxPages = MaxPagesLimit()
	}
	possible, err := readCPUs(possibleCPUs)
	if err != nil {
		return nil, err
	}
	online, err := readCPUs(onlineCPUs)
	if err != nil {
		return nil, err
	}
	s, err := planRings(possible, online, maxPages)
	if err != nil {
		return nil, err
	}
	n, cq := s.depth*len(s.online), ringCq
	if len(s.offline) > 0 {
		n++
		cq = max(ringCq, 2*len(s.offline))
	}
	for range n {
		g, err := newRing(cq)
		if err != nil {
			s.Close()
			return nil, ringRefused(err)
		}
		s.rings = append(s.rings, g)
	}
	return s, nil
}

// planRings decides how many rings there are.
func planRings(possible, online []int, maxPages int) (*Rings, error) {
	for i, cpu := range possible {
		if i != cpu {
			// The kernel counts its queues, and takes the CPU for the number of one.
			return nil, fmt.Errorf("the numbers of CPUs have gaps: there is no CPU %d", i)
		}
	}
	s := &Rings{online: online}
	for i, j := 0, 0; i < len(possible); i++ {
		if j < len(online) && online[j] == i {
			j++
			continue
		}
		s.offline = append(s.offline, i)
	}
	if len(online) == 0 || len(online)+len(s.offline) != len(possible) {
		return nil, fmt.Errorf("CPUs %v are online of %v", online, possible)
	}
	// Where the administrator has allowed very large requests, they are less so.
	fits := ringMemory / (ringDepthMin * len(online) * hostPage)
	s.maxPages = min(maxPages, max(fits, defaultMaxPages))
	s.depth = ringMemory / (len(online) * s.maxPages * hostPage)
	s.depth = min(max(s.depth, ringDepthMin), ringDepthMax)
	return s, nil
}

// Files returns how many descriptors the rings have.
func (s *Rings) Files() int { return len(s.rings) }

// Close ends them.
func (s *Rings) Close() {
	for _, g := range s.rings {
		g.close()
	}
	s.rings = nil
}

// attach gives all of them their file.
func (s *Rings) attach(fd int) error {
	for _, g := range s.rings {
		if err := g.attach(fd); err != nil {
			return err
		}
	}
	return nil
}

// readCPUs reads a list of CPUs, in order, as the kernel writes it: "0-3,8".
func readCPUs(path string) ([]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cpus, err := parseCPUs(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cpus, nil
}

func parseCPUs(list string) (cpus []int, err error) {
	const most = 1 << 13 // no kernel has more
	for run := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, isRun := strings.Cut(run, "-")
		a, err := strconv.Atoi(first)
		b := a
		if err == nil && isRun {
			b, err = strconv.Atoi(last)
		}
		if err != nil || a < 0 || b < a || b >= most || len(cpus) > 0 && a <= cpus[len(cpus)-1] {
			return nil, fmt.Errorf("%q is no list of CPUs", strings.TrimSpace(list))
		}
		for ; a <= b; a++ {
			cpus = append(cpus, a)
		}
	}
	return cpus, nil
}
