package populate

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// DeviceEntry is a line of a device table, in the format of genext2fs and
// Buildroot's makedevs:
//
//	name type mode uid gid major minor start increment count
//
// with "-" for a field that has no meaning. Types are f (a file that is there),
// F (a file that may be there), d, c, b, p, s (a socket) and r (a directory that
// is there, and all below it). With a count, entries name+start and so on are
// made, whose minor numbers grow by increment. A mode of -1 stays as it is. A line
// "|xattr capabilities" gives the entry before it file capabilities, as
// "cap_net_raw+ep".
type DeviceEntry struct {
	Line                    int // of the table, for errors
	Name                    string
	Type                    byte
	Mode                    int32 // permissions, octal in the table; -1: unchanged
	UID, GID                uint32
	Major, Minor            uint32
	Start, Increment, Count uint32
	Caps                    string // value of security.capability
}

const maxDevices = 1 << 16 // of one line

// ParseDeviceTable reads a table. Empty lines, and what follows a #, are
// comments. Errors name the line.
func ParseDeviceTable(r io.Reader) ([]DeviceEntry, error) {
	var out []DeviceEntry
	sc := bufio.NewScanner(r)
	for no := 1; sc.Scan(); no++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		fail := func(format string, args ...any) error {
			return fmt.Errorf("device table, line %d: %w", no, badInput(format, args...))
		}
		if f[0] == "|xattr" {
			if len(out) == 0 || len(f) != 2 {
				return nil, fail("|xattr needs an entry before it and one value")
			}
			caps, err := parseCaps(f[1])
			if err != nil {
				return nil, fail("%v", err)
			}
			out[len(out)-1].Caps = caps
			continue
		}
		if len(f) < 5 || len(f) > 10 {
			return nil, fail("%d fields; name, type, mode, uid and gid are wanted, then major, minor, start, increment, count", len(f))
		}
		e := DeviceEntry{Line: no, Name: f[0], Mode: -1}
		if len(f[1]) != 1 || !strings.Contains("fFdcbpsr", f[1]) {
			return nil, fail("type %q", f[1])
		}
		e.Type = f[1][0]
		if f[2] != "-1" && f[2] != "-" {
			m, err := strconv.ParseUint(f[2], 8, 12)
			if err != nil {
				return nil, fail("mode %q", f[2])
			}
			e.Mode = int32(m)
		}
		for i, at := range []*uint32{&e.UID, &e.GID, &e.Major, &e.Minor, &e.Start, &e.Increment, &e.Count} {
			if 3+i >= len(f) || f[3+i] == "-" {
				continue
			}
			v, err := strconv.ParseUint(f[3+i], 10, 32)
			if err != nil {
				return nil, fail("number %q", f[3+i])
			}
			*at = uint32(v)
		}
		if e.Count > maxDevices {
			return nil, fail("%d entries; at most %d", e.Count, maxDevices)
		}
		if e.Major > 0xfff || e.Minor > 0xfffff {
			return nil, fail("device %d, %d: ext4 has 12 and 20 bits", e.Major, e.Minor)
		}
		if e.Mode < 0 && strings.IndexByte("cbps", e.Type) >= 0 {
			return nil, fail("what is made needs a mode")
		}
		out = append(out, e)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("device table: %w", err)
	}
	return out, nil
}

// makeDevices applies the table to the tree.
func (t *Tree) makeDevices() error {
	for i := range t.opt.Devices {
		e := &t.opt.Devices[i]
		if err := t.makeDevice(e); err != nil {
			return fmt.Errorf("device table, line %d: %w", e.Line, &EntryError{"make", e.Name, err})
		}
	}
	return nil
}

func (t *Tree) makeDevice(e *DeviceEntry) error {
	typ := map[byte]uint16{'d': ondisk.ModeDir, 'c': ondisk.ModeChr, 'b': ondisk.ModeBlk, 'p': ondisk.ModeFIFO, 's': ondisk.ModeSock}[e.Type]
	switch e.Type {
	case 'f', 'F', 'r':
		id, n, err := t.findNode(e.Name)
		switch {
		case err != nil:
			return err
		case id == 0 && e.Type == 'F':
			return nil
		case id == 0:
			return syscall.ENOENT
		case e.Type == 'r':
			return t.chown(id, e)
		case !n.isReg():
			return badInput("it is not a regular file")
		}
		return t.apply(e, id, &n)
	case 'd':
		id, n, err := t.findNode(e.Name)
		if err != nil {
			return err
		}
		if id != 0 && n.isDir() {
			return t.apply(e, id, &n)
		}
		if e.Mode < 0 {
			return badInput("a new directory needs a mode")
		}
		return t.addDevice(e, e.Name, typ, 0)
	}
	if e.Count == 0 {
		return t.addDevice(e, e.Name, typ, e.Minor)
	}
	for i := range e.Count {
		minor := uint64(e.Minor) + uint64(i)*uint64(e.Increment)
		if minor > 0xfffff {
			return badInput("minor number %d: ext4 has 20 bits", minor)
		}
		name := e.Name + strconv.FormatUint(uint64(e.Start)+uint64(i), 10)
		if err := t.addDevice(e, name, typ, uint32(minor)); err != nil {
			return err
		}
	}
	return nil
}

// findNode is find, and the node.
func (t *Tree) findNode(path string) (id nodeID, n node, err error) {
	if id, err = t.find(path); id != 0 && err == nil {
		n, err = t.node(id)
	}
	return id, n, err
}

// addDevice makes an inode of the entry, whose times are those of the root.
func (t *Tree) addDevice(e *DeviceEntry, name string, typ uint16, minor uint32) error {
	n := &node{mode: typ, atime: t.root.mtime, mtime: t.root.mtime}
	if typ == ondisk.ModeChr || typ == ondisk.ModeBlk {
		n.rdev = encodeDev(e.Major, minor)
	}
	if err := e.set(t, n); err != nil {
		return err
	}
	return t.add(name, n, 0)
}

// apply gives a node that is there what e says.
func (t *Tree) apply(e *DeviceEntry, id nodeID, n *node) error {
	if err := e.set(t, n); err != nil {
		return err
	}
	return t.change(id, n)
}

func (e *DeviceEntry) set(t *Tree, n *node) error {
	n.implied = false
	if err := e.own(t, n); err != nil || e.Caps == "" {
		return err
	}
	return n.setAttr(t, xattr{xattrCaps, e.Caps})
}

// own gives a node owners and permissions.
func (e *DeviceEntry) own(t *Tree, n *node) error {
	n.fixed = true
	n.uid, n.gid = e.UID, e.GID
	if e.Mode < 0 || n.isLnk() {
		return nil
	}
	n.mode = n.mode&ondisk.ModeFmt | uint16(e.Mode)
	return n.chmodACL(t)
}

// chown applies e to a node and all below it, as far as owners and permissions go.
func (t *Tree) chown(id nodeID, e *DeviceEntry) error {
	n, err := t.node(id)
	if err == nil {
		err = e.own(t, &n)
	}
	if err == nil {
		err = t.change(id, &n)
	}
	if err != nil || !n.isDir() {
		return err
	}
	return t.each(id, func(_ string, d dirent) error { return t.chown(d.id, e) })
}

// setAttr gives n an attribute, in place of one of that name; without a value
// it has none.
func (n *node) setAttr(t *Tree, x xattr) error {
	list, err := t.attrsOf(n)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(old xattr) bool { return old.name == x.name })
	if x.value != "" {
		list = append(list, x)
	}
	n.attrs, err = t.share(list)
	return err
}

// chmodACL makes the access ACL of n, if it has one, agree with its mode.
func (n *node) chmodACL(t *Tree) error {
	list, err := t.attrsOf(n)
	if err != nil {
		return err
	}
	for _, x := range list {
		if x.name != xattrAccess {
			continue
		}
		acl, err := ondisk.ParseXattrACL([]byte(x.value))
		if err == nil && acl.Chmod(n.mode) {
			return n.setAttr(t, xattr{xattrAccess, string(acl.AppendXattr(nil))})
		}
		break
	}
	return nil
}

// capNames is the capabilities by their numbers.
var capNames = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap
linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio
sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease
audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon
bpf checkpoint_restore`)

// parseCaps returns the attribute for capabilities that are written like
// "cap_net_raw,cap_net_admin+ep": names, then what sets they are in.
func parseCaps(s string) (string, error) {
	names, flags, ok := strings.Cut(s, "+")
	if !ok {
		names, flags, ok = strings.Cut(s, "=")
	}
	if !ok || flags == "" || strings.Trim(flags, "eip") != "" {
		return "", badInput("capabilities %q are not like cap_net_raw+ep", s)
	}
	var set uint64
	for name := range strings.SplitSeq(names, ",") {
		bit := -1
		for i, c := range capNames {
			if "cap_"+c == strings.ToLower(name) {
				bit = i
			}
		}
		if bit < 0 {
			return "", badInput("capability %q", name)
		}
		set |= 1 << bit
	}
	var permitted, inheritable uint64
	magic := uint32(0x02000000)
	if strings.Contains(flags, "p") {
		permitted = set
	}
	if strings.Contains(flags, "i") {
		inheritable = set
	}
	if strings.Contains(flags, "e") {
		magic |= 1
	}
	b := binary.LittleEndian.AppendUint32(nil, magic)
	for shift := range 2 {
		b = binary.LittleEndian.AppendUint32(b, uint32(permitted>>(32*shift)))
		b = binary.LittleEndian.AppendUint32(b, uint32(inheritable>>(32*shift)))
	}
	return string(b), nil
}
