package e2p

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// ListMMP writes what the block of multiple mount protection says, as dumpe2fs
// does.
func ListMMP(w io.Writer, m *ondisk.MMP, loc *time.Location) error {
	l := bufio.NewWriter(w)
	fmt.Fprintf(l, "MMP_block:\n    mmp_magic: 0x%x\n", m.Magic.Get())
	fmt.Fprintf(l, "    mmp_check_interval: %d\n", m.CheckInterval.Get())
	fmt.Fprintf(l, "    mmp_sequence: %s\n", hex8(m.Seq.Get()))
	fmt.Fprintf(l, "    mmp_update_date: %s", ctimeLine(int64(m.Time.Get()), loc))
	fmt.Fprintf(l, "    mmp_update_time: %d\n", m.Time.Get())
	fmt.Fprintf(l, "    mmp_node_name: %s\n", Text(m.NodeName[:]))
	fmt.Fprintf(l, "    mmp_device_name: %s\n", Text(m.BdevName[:]))
	return l.Flush()
}

// hex8 is C's %#08x: eight characters, of which 0x are two.
func hex8(v uint32) string {
	if v == 0 {
		return "00000000"
	}
	s := strconv.FormatUint(uint64(v), 16)
	for len(s) < 6 {
		s = "0" + s
	}
	return "0x" + s
}
