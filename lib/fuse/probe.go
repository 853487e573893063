//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ServerIoctls are the requests to /dev/fuse that a server that is mounted may
// need: a filter of system calls is to let them through.
var ServerIoctls = []uint32{devIocBackingOpen, devIocBackingClose, devIocSetNofs, devIocSetBlocksize, devIocIomapSupport}

// Answer is what is known of a question.
type Answer string

// Answers.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// Finding is an answer, and what explains it.
type Finding struct {
	Have   Answer `json:"have"`
	Detail string `json:"detail"`
}

// Offer is what a kernel says of itself with INIT.
type Offer struct {
	Major, Minor uint32
	Flags        InitFlags
}

// Protocol is the version of FUSE that the kernel speaks, 0.0 if not known.
type Protocol struct {
	Major uint32    `json:"major"`
	Minor uint32    `json:"minor"`
	From  string    `json:"from"`  // "init", "release" of the kernel, or "unknown"
	Why   string    `json:"why"`   // not from INIT; "" if it is
	Flags InitFlags `json:"flags"` // offered with INIT
}

// Probe is what this kernel, and this user on it, can do. Its JSON keys stay.
type Probe struct {
	Kernel   string   `json:"kernel"` // release
	UID      int      `json:"uid"`
	Protocol Protocol `json:"protocol"`

	// What a kernel may have, for speed.
	Iomap        Finding `json:"iomap"`
	IomapProfile string  `json:"iomap_profile"` // "may26", "unknown" before a file is used, or "" without iomap
	IOUring      Finding `json:"io_uring"`
	ZeroCopy     Finding `json:"zero_copy"`
	Passthrough  Finding `json:"passthrough"`
	MaxPages     int     `json:"max_pages_limit"` // of the host, in a request

	// What it may have for mounts.
	SyncInit  Finding `json:"sync_init"`
	IDMapped  Finding `json:"idmapped"`
	Fuseblk   Finding `json:"fuseblk"`
	LoopDev   Finding `json:"loop"`
	DevFuse   Finding `json:"dev_fuse"`        // can be opened
	Direct    Finding `json:"direct"`          // mounts by system call
	Helper    Finding `json:"fusermount3"`     // mounts by the setuid helper
	Namespace Finding `json:"user_namespaces"` // mounts in a user namespace of its own
}

// Possible tells whether this user can mount at all.
func (p *Probe) Possible() bool {
	return p.Direct.Have == Yes || p.Helper.Have == Yes || p.Namespace.Have == Yes
}

// probeSys is the system that is probed.
type probeSys struct {
	release     string
	uid         int
	sysAdmin    bool // CAP_SYS_ADMIN in the initial user namespace
	nnp         bool // no_new_privs is set: setuid does not work
	open        func() (int, error)
	close       func(fd int)
	ioctl       func(fd int, req uintptr, arg []byte) syscall.Errno
	offer       func() (*Offer, error) // of a throw-away mount
	inNamespace func() (*Offer, error) // the same, in a user namespace
	read        func(path string) (string, error)
	access      func(path string) error // to read and write
	ring        func() error            // makes an io_uring
	helper      func() (path string, setuid bool, err error)
	maxPages    int
}

// NewProbe finds out. It changes nothing: where it has to mount to know, the
// mount is nowhere in the tree. inNamespace runs [ProbeOffer] in a process that
// is root of a new user namespace, with a mount namespace.
func NewProbe(inNamespace func() (*Offer, error)) *Probe {
	s := &probeSys{
		release:     release(),
		uid:         os.Geteuid(),
		sysAdmin:    initialSysAdmin(),
		open:        func() (int, error) { return unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0) },
		close:       func(fd int) { unix.Close(fd) },
		offer:       ProbeOffer,
		inNamespace: inNamespace,
		read: func(path string) (string, error) {
			b, err := os.ReadFile(path)
			return strings.TrimSpace(string(b)), err
		},
		access: func(path string) error {
			return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
		},
		ring: func() error {
			g, err := newRing(ringCq)
			if err == nil {
				g.close()
			}
			return err
		},
		helper:   setuidHelper,
		maxPages: MaxPagesLimit(),
	}
	s.ioctl = func(fd int, req uintptr, arg []byte) syscall.Errno {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
		return errno
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil {
		s.nnp = v == 1
	}
	return s.probe()
}

func (s *probeSys) probe() *Probe {
	p := &Probe{Kernel: s.release, UID: s.uid, MaxPages: s.maxPages}
	p.DevFuse = s.device()
	offer := s.mounting(p)
	p.Protocol = s.protocol(offer, p)
	s.iomap(p, offer)
	s.syncInit(p)
	s.features(p, offer)
	s.blockDevices(p)
	return p
}

func (s *probeSys) device() Finding {
	fd, err := s.open()
	switch {
	case err == nil:
		s.close(fd)
		return Finding{Yes, "/dev/fuse can be opened"}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return Finding{No, "/dev/fuse: " + err.Error() + "; load the module fuse"}
	}
	return Finding{No, "/dev/fuse: " + err.Error()}
}

// mounting finds the ways to mount, and what the kernel offered to the first.
func (s *probeSys) mounting(p *Probe) *Offer {
	offer, err := s.offer()
	if err == nil {
		p.Direct = Finding{Yes, "CAP_SYS_ADMIN over its mounts"}
	} else {
		p.Direct = Finding{No, err.Error()}
	}
	p.Helper = s.helperFinding()
	if offer != nil {
		p.Namespace = Finding{Unknown, "not needed"}
		return offer
	}
	p.Namespace = Finding{No, s.namespaceLimit()}
	if p.Namespace.Detail == "" {
		if offer, err = s.inNamespace(); err == nil {
			p.Namespace = Finding{Yes, "seen inside only: unshare --user --map-root-user --mount"}
		} else {
			p.Namespace.Detail = err.Error()
		}
	}
	return offer
}

func (s *probeSys) helperFinding() Finding {
	path, setuid, err := s.helper()
	switch {
	case err != nil:
		return Finding{No, err.Error() + "; install fuse3"}
	case !setuid:
		return Finding{No, path + " is not set-user-id root"}
	case s.nnp:
		return Finding{No, "no_new_privs is set, so that " + path + " gets no privilege"}
	case s.uid == 0 && !s.sysAdmin:
		return Finding{Unknown, path + ", if it gets root the CAP_SYS_ADMIN that it does not have"}
	}
	// It opens the device as the user.
	fd, err := s.open()
	if err != nil {
		return Finding{No, path + ", but /dev/fuse: " + err.Error()}
	}
	s.close(fd)
	return Finding{Yes, path}
}

// namespaceLimit returns what forbids user namespaces, or "".
func (s *probeSys) namespaceLimit() string {
	for _, l := range []struct{ sysctl, forbids string }{
		{"user/max_user_namespaces", "0"},
		{"kernel/unprivileged_userns_clone", "0"}, // Debian's
	} {
		if v, err := s.read("/proc/sys/" + l.sysctl); err == nil && v == l.forbids {
			return fmt.Sprintf("%s is %s", strings.ReplaceAll(l.sysctl, "/", "."), v)
		}
	}
	return ""
}

func (s *probeSys) protocol(offer *Offer, p *Probe) Protocol {
	if offer != nil {
		return Protocol{Major: offer.Major, Minor: offer.Minor, From: "init", Flags: offer.Flags}
	}
	out := Protocol{From: "unknown", Why: "no mount could be made: " + p.Direct.Detail}
	if minor := minorOfRelease(s.release); minor > 0 {
		out.Major, out.Minor, out.From = Major, minor, "release"
	}
	return out
}

// iomap asks the device, which is the only one to know: the flag of INIT means
// something else to a stock kernel.
func (s *probeSys) iomap(p *Probe, offer *Offer) {
	fd, err := s.open()
	if err != nil {
		p.Iomap = Finding{Unknown, p.DevFuse.Detail}
		return
	}
	defer s.close(fd)
	arg := make([]byte, 16) // struct fuse_iomap_support: flags, padding
	switch errno := s.ioctl(fd, devIocIomapSupport, arg); {
	case errno == unix.ENOTTY:
		p.Iomap = Finding{No, "not in this kernel"}
		return
	case errno != 0:
		p.Iomap = Finding{Unknown, "/dev/fuse: " + errno.Error()}
		return
	}
	// Only one of the two forms of the patches stripes.
	p.IomapProfile = "may26"
	if s.ioctl(fd, devIocStripe, make([]byte, 16)) == unix.ENOTTY {
		// Neither v7 nor all kernels with the numbers of may26 have it.
		p.IomapProfile = "unknown"
	}
	flags := *(*uint64)(unsafe.Pointer(&arg[0]))
	switch {
	case flags&1 == 0:
		p.Iomap = Finding{No, "in the kernel, but needs CAP_SYS_RAWIO and fuse.enable_iomap=1, or a mount helper that has them"}
	case offer != nil && offer.Minor != IomapMinor:
		p.Iomap = Finding{No, fmt.Sprintf("the device has it, but the protocol is 7.%d", offer.Minor)}
	case flags&2 != 0:
		p.Iomap = Finding{Yes, "file I/O and atomic writes"}
	default:
		p.Iomap = Finding{Yes, "file I/O"}
	}
}

// syncInit asks on a descriptor that nobody mounts.
func (s *probeSys) syncInit(p *Probe) {
	fd, err := s.open()
	if err != nil {
		p.SyncInit = Finding{Unknown, p.DevFuse.Detail}
		return
	}
	defer s.close(fd)
	switch errno := s.ioctl(fd, devIocSyncInit, nil); errno {
	case 0:
		p.SyncInit = Finding{Yes, "INIT is answered inside of mount(2)"}
	case unix.ENOTTY:
		p.SyncInit = Finding{No, "not in this kernel"}
	default:
		p.SyncInit = Finding{Unknown, errno.Error()}
	}
}

// Paths are the ways of file data that are better than READ and WRITE over
// /dev/fuse, the best first.
type Paths struct {
	Iomap    Finding // the kernel does the I/O
	ZeroCopy Finding // the server does, on the client's pages
	IOUring  Finding // the server copies, with one system call for each request
}

// Paths returns what the offer says of them.
func (o *Offer) Paths() Paths {
	is := func(have bool, need string) Finding {
		if have {
			return Finding{Yes, "offered"}
		}
		return Finding{No, "not offered; needs " + need}
	}
	ours := o.Minor == IomapMinor
	p := Paths{
		Iomap:    is(ours && o.Flags&Iomap != 0, "a kernel with fuse-iomap, which allows it to this mount"),
		ZeroCopy: is(!ours && o.Minor >= 46 && o.Flags&Iomap != 0, "protocol 7.46, and fuse.enable_uring"),
		IOUring:  is(o.Flags&OverIOUring != 0, "protocol 7.42, and fuse.enable_uring"),
	}
	if p.ZeroCopy.Have == Yes && p.IOUring.Have == No {
		p.ZeroCopy = Finding{No, "no io_uring: " + p.IOUring.Detail}
	}
	return p
}

// features are those that INIT offers.
func (s *probeSys) features(p *Probe, offer *Offer) {
	since := func(minor uint32) Finding {
		switch {
		case p.Protocol.Minor == 0:
			return Finding{Unknown, "no INIT was seen"}
		case p.Protocol.Minor < minor:
			return Finding{No, fmt.Sprintf("needs protocol 7.%d", minor)}
		}
		return Finding{Unknown, "may be, by the protocol; no INIT was seen"}
	}
	p.Passthrough, p.IDMapped, p.IOUring, p.ZeroCopy = since(40), since(41), since(42), since(46)
	if offer != nil {
		paths := offer.Paths()
		p.IOUring, p.ZeroCopy = paths.IOUring, paths.ZeroCopy
		p.Passthrough = Finding{No, "not offered; needs protocol 7.40 and CONFIG_FUSE_PASSTHROUGH"}
		if offer.Flags&Passthrough != 0 {
			p.Passthrough = Finding{Yes, "offered; takes CAP_SYS_ADMIN"}
		}
		p.IDMapped = Finding{No, "not offered; needs protocol 7.41"}
		if offer.Flags&AllowIDMap != 0 {
			p.IDMapped = Finding{Yes, "offered"}
		}
	}
	// Why there is no io_uring, where an administrator could change it.
	off := func(why string) {
		p.IOUring = Finding{No, why}
		if p.Protocol.Minor >= 46 && p.Protocol.Minor != IomapMinor {
			p.ZeroCopy = Finding{No, "no io_uring: " + why}
		}
	}
	if p.IOUring.Have != No {
		if err := s.ring(); err != nil {
			off(ringRefused(err).Error())
		}
	}
	if v, err := s.read(UringPath); err == nil && !isOn(v) {
		off("fuse.enable_uring is " + v)
	}
	if v, err := s.read("/proc/sys/kernel/io_uring_disabled"); err == nil && (v == "2" || v == "1" && !s.sysAdmin) {
		off("kernel.io_uring_disabled is " + v)
	}
}

func (s *probeSys) blockDevices(p *Probe) {
	list, err := s.read("/proc/filesystems")
	switch {
	case err != nil:
		p.Fuseblk = Finding{Unknown, err.Error()}
	case !strings.Contains(list, "fuseblk"):
		p.Fuseblk = Finding{No, "not in this kernel, or its module is not loaded"}
	case !s.sysAdmin:
		p.Fuseblk = Finding{No, "needs CAP_SYS_ADMIN in the initial user namespace"}
	default:
		p.Fuseblk = Finding{Yes, "umount(2) waits until the file system is clean"}
	}
	switch err := s.access("/dev/loop-control"); {
	case err != nil:
		p.LoopDev = Finding{No, "/dev/loop-control: " + err.Error()}
	case !s.sysAdmin:
		p.LoopDev = Finding{No, "needs CAP_SYS_ADMIN in the initial user namespace"}
	default:
		p.LoopDev = Finding{Yes, "an image can be mounted as fuseblk"}
	}
}

// ProbeOffer makes a mount that is nowhere in the tree, and returns what the
// kernel offers to its server.
func ProbeOffer() (*Offer, error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	unix.Close(fs)
	m := &Mount{opts: MountOptions{Source: "probe", RootMode: unix.S_IFDIR}, fd: -1, mnt: -1, comm: -1}
	if err := m.direct(); err != nil {
		return nil, err
	}
	var offer *Offer
	c, err := NewConn(m.fd, Config{Workers: 1, Init: func(in *InitIn, _ *InitOut) error {
		offer = &Offer{in.Major, in.Minor, in.AllFlags()}
		return nil
	}})
	if err != nil {
		m.Close()
		unix.Close(m.fd)
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- c.Serve() }()
	select {
	case <-c.Ready():
	case err = <-served:
	case <-time.After(5 * time.Second):
		err = errors.New("the kernel sends no INIT")
	}
	m.Close() // ends the connection
	if err == nil {
		err = <-served
	}
	if offer != nil {
		return offer, nil
	}
	if err == nil {
		err = errors.New("no INIT arrived")
	}
	return nil, err
}

// releaseMinors are the first kernels of each minor of the protocol.
var releaseMinors = []struct {
	major, minor int
	proto        uint32
}{
	{6, 18, 45}, {6, 16, 44}, {6, 15, 43}, {6, 14, 42}, {6, 12, 41}, {6, 9, 40}, {6, 6, 39}, {6, 2, 38},
	{6, 1, 37}, {5, 17, 36}, {5, 16, 35}, {5, 14, 34}, {5, 11, 33}, {5, 10, 32}, {5, 4, 31},
}

// minorOfRelease returns the least minor that a kernel of that release speaks,
// 0 if not known. Newer ones than the table has may speak more.
func minorOfRelease(release string) uint32 {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return 0
	}
	for _, r := range releaseMinors {
		if major > r.major || major == r.major && minor >= r.minor {
			return r.proto
		}
	}
	return 0
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// initialSysAdmin tells whether the process has CAP_SYS_ADMIN where it counts
// for all.
func initialSysAdmin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil || data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return false
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	if err != nil || len(f) != 3 {
		return false
	}
	n, err := strconv.ParseUint(f[2], 10, 64)
	return err == nil && f[0] == "0" && f[1] == "0" && n >= 1<<32-1
}

// setuidHelper finds fusermount3, and whether it gets root's privilege.
func setuidHelper() (path string, setuid bool, err error) {
	if path, err = findFusermount(); err != nil {
		return "", false, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return path, false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	var fs unix.Statfs_t
	nosuid := unix.Statfs(path, &fs) == nil && fs.Flags&unix.ST_NOSUID != 0
	return path, st.Mode&unix.S_ISUID != 0 && st.Uid == 0 && !nosuid, nil
}
