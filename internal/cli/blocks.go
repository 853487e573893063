package cli

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
)

// ReadBlocks reads block numbers, one a line, as badblocks(8) prints them. Empty
// lines, and those that start with #, are left out; anything else is an error.
func ReadBlocks(r io.Reader) (blocks []uint64, err error) {
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		t := strings.TrimSpace(sc.Text())
		if t == "" || t[0] == '#' {
			continue
		}
		n, err := strconv.ParseUint(t, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q is not a block number: %w", line, t, syscall.EINVAL)
		}
		blocks = append(blocks, n)
	}
	return blocks, sc.Err()
}
