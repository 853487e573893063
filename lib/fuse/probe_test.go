//go:build linux

package fuse

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeSys is a stock kernel of the release, to whom root is the caller; files
// are what it reads.
func fakeSys(release string, offer *Offer, files map[string]string) *probeSys {
	s := &probeSys{
		release:  release,
		sysAdmin: true,
		maxPages: 256,
		open:     func() (int, error) { return 100, nil },
		close:    func(int) {},
		ioctl:    func(int, uintptr, []byte) syscall.Errno { return unix.ENOTTY },
		access:   func(string) error { return nil },
		helper:   func() (string, bool, error) { return "", false, errNoFusermount },
		ring:     func() error { return nil },
		read: func(path string) (string, error) {
			if v, ok := files[path]; ok {
				return v, nil
			}
			return "", os.ErrNotExist
		},
		inNamespace: func() (*Offer, error) { return nil, unix.EPERM },
	}
	s.offer = func() (*Offer, error) {
		if offer == nil {
			return nil, unix.EPERM
		}
		return offer, nil
	}
	return s
}

// supports answers IOMAP_SUPPORT with flags, and the ioctls of a form of the patches.
func supports(flags uint64, stripes bool) func(int, uintptr, []byte) syscall.Errno {
	return func(_ int, req uintptr, arg []byte) syscall.Errno {
		switch req {
		case devIocIomapSupport:
			if len(arg) != 16 {
				return unix.EFAULT
			}
			binary.NativeEndian.PutUint64(arg, flags)
			return 0
		case devIocStripe:
			if stripes {
				return unix.EPERM
			}
		}
		return unix.ENOTTY
	}
}

func TestProbeIomap(t *testing.T) {
	const all = Iomap | OverIOUring | InitExt
	for _, c := range []struct {
		name     string
		offer    *Offer
		ioctl    func(int, uintptr, []byte) syscall.Errno
		have     Answer
		profile  string
		zeroCopy Answer
	}{
		{"stock 6.18", &Offer{7, 45, OverIOUring}, nil, No, "", No},
		// The same bit, which is no iomap.
		{"stock 7.3", &Offer{7, 46, all}, nil, No, "", Yes},
		{"stock 7.3 without io_uring", &Offer{7, 46, Iomap}, nil, No, "", No},
		{"of May", &Offer{7, 99, all}, supports(3, true), Yes, "may26", No},
		{"v7", &Offer{7, 99, all}, supports(1, false), Yes, "unknown", No},
		{"not allowed", &Offer{7, 99, OverIOUring}, supports(0, true), No, "may26", No},
		{"ioctl says yes, minor no", &Offer{7, 46, all}, supports(1, true), No, "may26", Yes},
		{"no INIT", nil, supports(1, true), Yes, "may26", No},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fakeSys("6.18.0", c.offer, nil)
			if c.ioctl != nil {
				s.ioctl = c.ioctl
			}
			p := s.probe()
			if p.Iomap.Have != c.have || p.IomapProfile != c.profile || p.ZeroCopy.Have != c.zeroCopy {
				t.Errorf("iomap %v, profile %q, zero-copy %v", p.Iomap, p.IomapProfile, p.ZeroCopy)
			}
			if c.offer == nil {
				return
			}
			// The flag counts as iomap with minor 99 only.
			want := No
			if c.offer.Minor == IomapMinor && c.offer.Flags&Iomap != 0 {
				want = Yes
			}
			if got := c.offer.Paths().Iomap.Have; got != want {
				t.Errorf("the offer alone says %s", got)
			}
		})
	}
}

func TestProbeProtocol(t *testing.T) {
	for _, c := range []struct {
		release string
		minor   uint32
	}{
		{"5.4.0-generic", 31}, {"5.10.0", 32}, {"5.15.1", 34}, {"6.1.0-18-amd64", 37}, {"6.12.9", 41}, {"6.13.0", 41},
		{"6.18.44-x", 45}, {"7.3.4", 45}, {"4.19.0", 0}, {"", 0}, {"x", 0},
	} {
		p := fakeSys(c.release, nil, nil).probe().Protocol
		from := "release"
		if c.minor == 0 {
			from = "unknown"
		}
		if p.Minor != c.minor || p.From != from || p.Why == "" {
			t.Errorf("%s: %+v", c.release, p)
		}
	}
	p := fakeSys("5.4.0", &Offer{7, 45, Passthrough}, nil).probe()
	if p.Protocol.Minor != 45 || p.Protocol.From != "init" || p.Protocol.Why != "" || p.Passthrough.Have != Yes || p.IDMapped.Have != No {
		t.Errorf("%+v", p)
	}
}

func TestProbeWays(t *testing.T) {
	denied := func() (int, error) { return -1, unix.EACCES }
	for _, c := range []struct {
		name                      string
		change                    func(*probeSys)
		direct, helper, namespace Answer
		detail                    string // of one of them
	}{
		{"root", func(*probeSys) {}, Yes, No, Unknown, "install fuse3"},
		{"no module", func(s *probeSys) {
			s.open = func() (int, error) { return -1, unix.ENODEV }
			s.helper = func() (string, bool, error) { return "/bin/fusermount3", true, nil }
			s.offer = func() (*Offer, error) { return nil, unix.ENODEV }
		}, No, No, No, "no such device"},
		{"user with fusermount3", func(s *probeSys) {
			s.uid, s.sysAdmin = 1000, false
			s.offer = func() (*Offer, error) { return nil, unix.EPERM }
			s.helper = func() (string, bool, error) { return "/bin/fusermount3", true, nil }
		}, No, Yes, No, "/bin/fusermount3"},
		{"user without the device", func(s *probeSys) {
			s.uid, s.open, s.sysAdmin = 1000, denied, false
			s.offer = func() (*Offer, error) { return nil, unix.EPERM }
			s.helper = func() (string, bool, error) { return "/bin/fusermount3", true, nil }
		}, No, No, No, "permission denied"},
		{"not set-user-id", func(s *probeSys) {
			s.uid, s.sysAdmin = 1000, false
			s.offer = func() (*Offer, error) { return nil, unix.EPERM }
			s.helper = func() (string, bool, error) { return "/bin/fusermount3", false, nil }
		}, No, No, No, "not set-user-id"},
		{"no_new_privs", func(s *probeSys) {
			s.uid, s.sysAdmin, s.nnp = 1000, false, true
			s.offer = func() (*Offer, error) { return nil, unix.EPERM }
			s.helper = func() (string, bool, error) { return "/bin/fusermount3", true, nil }
		}, No, No, No, "no_new_privs"},
		{"namespace", func(s *probeSys) {
			s.uid, s.sysAdmin = 1000, false
			s.offer = func() (*Offer, error) { return nil, unix.EPERM }
			s.inNamespace = func() (*Offer, error) { return &Offer{7, 45, AllowIDMap}, nil }
		}, No, No, Yes, "unshare"},
		{"namespaces limited", func(s *probeSys) {
			s.uid, s.sysAdmin = 1000, false
			s.offer = func() (*Offer, error) { return nil, unix.EPERM }
			s.read = func(path string) (string, error) {
				if path == "/proc/sys/user/max_user_namespaces" {
					return "0", nil
				}
				return "", os.ErrNotExist
			}
			s.inNamespace = func() (*Offer, error) { return nil, errors.New("tried all the same") }
		}, No, No, No, "user.max_user_namespaces is 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fakeSys("6.18.0", &Offer{7, 45, 0}, nil)
			c.change(s)
			p := s.probe()
			if p.Direct.Have != c.direct || p.Helper.Have != c.helper || p.Namespace.Have != c.namespace {
				t.Errorf("direct %v, helper %v, namespace %v", p.Direct, p.Helper, p.Namespace)
			}
			if all := p.Direct.Detail + "\n" + p.Helper.Detail + "\n" + p.Namespace.Detail; !strings.Contains(all, c.detail) {
				t.Errorf("says nothing of %q:\n%s", c.detail, all)
			}
			if want := c.direct == Yes || c.helper == Yes || c.namespace == Yes; p.Possible() != want {
				t.Errorf("possible: %v", p.Possible())
			}
			if s.uid != 0 && (p.Fuseblk.Have == Yes || p.LoopDev.Have == Yes) {
				t.Errorf("a user gets fuseblk %v, loop %v", p.Fuseblk, p.LoopDev)
			}
		})
	}
}

func TestProbeIOUring(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		offer *Offer
		want  Answer
		why   string
	}{
		{nil, &Offer{7, 45, OverIOUring}, Yes, "offered"},
		{map[string]string{"/sys/module/fuse/parameters/enable_uring": "N"}, &Offer{7, 45, 0}, No, "fuse.enable_uring is N"},
		{map[string]string{"/sys/module/fuse/parameters/enable_uring": "N"}, nil, No, "fuse.enable_uring is N"},
		{map[string]string{"/proc/sys/kernel/io_uring_disabled": "2"}, &Offer{7, 45, OverIOUring}, No, "kernel.io_uring_disabled is 2"},
		{map[string]string{"/proc/sys/kernel/io_uring_disabled": "1"}, &Offer{7, 45, OverIOUring}, Yes, "offered"}, // of root
		{nil, nil, Unknown, "no INIT"},
	} {
		p := fakeSys("6.18.0", c.offer, c.files).probe()
		if p.IOUring.Have != c.want || !strings.Contains(p.IOUring.Detail, c.why) {
			t.Errorf("%v, %v: %v", c.files, c.offer, p.IOUring)
		}
	}
	s := fakeSys("6.18.0", &Offer{7, 45, OverIOUring}, nil)
	s.ring = func() error { return os.NewSyscallError("io_uring_setup", unix.EPERM) }
	if p := s.probe(); p.IOUring.Have != No || !strings.Contains(p.IOUring.Detail, "io_uring_setup: operation not permitted: see ") {
		t.Errorf("no ring can be made: %v", p.IOUring)
	}
}

// The keys are what scripts depend on.
func TestProbeJSON(t *testing.T) {
	b, err := json.Marshal(fakeSys("6.18.0", &Offer{7, 45, 0}, nil).probe())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for k, v := range m {
		if f, ok := v.(map[string]any); ok {
			for sub := range f {
				keys = append(keys, k+"."+sub)
			}
			continue
		}
		keys = append(keys, k)
	}
	slices.Sort(keys)
	want := "dev_fuse.detail dev_fuse.have direct.detail direct.have fuseblk.detail fuseblk.have fusermount3.detail fusermount3.have " +
		"idmapped.detail idmapped.have io_uring.detail io_uring.have iomap.detail iomap.have iomap_profile kernel loop.detail loop.have " +
		"max_pages_limit passthrough.detail passthrough.have protocol.flags protocol.from protocol.major protocol.minor protocol.why " +
		"sync_init.detail sync_init.have uid user_namespaces.detail user_namespaces.have zero_copy.detail zero_copy.have"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestProbeReal compares what the probe says of this machine with a mount, and
// looks for what it may have left.
func TestProbeReal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	before, _ := os.ReadFile("/proc/self/mountinfo")
	p := NewProbe(func() (*Offer, error) { return nil, fmt.Errorf("not tried") })
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Count(string(before), "fuse.probe")+strings.Count(string(before), " probe ") != strings.Count(string(after), " probe ") {
		t.Errorf("a mount is left:\n%s", after)
	}
	x := mountMem(t, newMemFS(), MountOptions{}, Config{})
	n := x.c.Negotiated()
	if p.Direct.Have != Yes || p.Protocol.From != "init" || p.Protocol.Minor != n.Minor || p.Protocol.Flags != n.Offered {
		t.Errorf("probe: %+v; a mount: minor %d, %#x", p.Protocol, n.Minor, n.Offered)
	}
	if least := minorOfRelease(p.Kernel); least > n.Minor {
		t.Errorf("by its release %s the kernel speaks 7.%d, it does 7.%d", p.Kernel, least, n.Minor)
	}
	if p.Iomap.Have == Yes && n.Minor != IomapMinor {
		t.Errorf("iomap with minor %d", n.Minor)
	}
}
