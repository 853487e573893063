//go:build linux

package service

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// feed sends data as packets: a byte of length in units of 4 bytes and whether
// a descriptor goes along, then the packet. It does not wait for room.
func feed(fd int, data []byte) {
	for len(data) > 0 {
		n, pass := 4*int(data[0]>>1), data[0]&1 != 0
		data = data[1:]
		p := data[:min(n, len(data))]
		data = data[len(p):]
		var oob []byte
		if pass {
			oob = unix.UnixRights(memfds[0])
		}
		if unix.Sendmsg(fd, p, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == unix.EAGAIN {
			return
		}
	}
}

// packet is one packet of feed's.
func packet(pass byte, s string) []byte {
	for len(s)%4 != 0 {
		s += "\x00"
	}
	return append([]byte{byte(len(s)/4)<<1 | pass}, s...)
}

func cat(p ...[]byte) (out []byte) {
	for _, b := range p {
		out = append(out, b...)
	}
	return out
}

// A helper that sends anything: no panic, no wait, no descriptor left.
func FuzzServer(f *testing.F) {
	args := memfd(f, "ARGS\x00\x00\x00\x02\x00\x00\x00\x18\x00\x00\x00\x02\x00\x00\x00\x1a\x00\x00\x00\x02x\x00y\x00")
	f.Cleanup(closeMemfds)
	_ = args
	hello := packet(0, "SAFT\x00\x01\x00\x01\x00\x00\x00\x03")
	f.Add(cat(hello, packet(1, "FILE\x00\x00\x00\x00argv\x00"), packet(1, "FILE\x00\x00\x00\x00fusedev\x00"),
		packet(1, "FILE\x00\x00\x00\x00img\x00"), packet(0, "REPL\x00\x00\x00\x00"), packet(0, "REPL\x00\x00\x00\x00")))
	f.Add(hello)
	f.Add(cat(hello, packet(1, "FILE\x00\x00\x00\x05argv\x00")))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := descriptors(t)
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		feed(fds[0], data)
		unix.Shutdown(fds[0], unix.SHUT_WR)
		if srv, err := Accept(fds[1], time.Minute); err == nil {
			for _, open := range []func() (int, error){
				func() (int, error) { return srv.Open("img", unix.O_RDWR, 0, 0) },
				func() (int, error) { return srv.OpenBdev("img", unix.O_RDWR, 0, 512) },
			} {
				if fd, err := open(); err == nil {
					unix.Close(fd)
				}
			}
			srv.Iomap(false)
			srv.Seal()
			srv.Fsopen(0)
			srv.Source("s")
			srv.Mountpoint("m", 0)
			srv.Mntopts("o")
			srv.Mount(0)
			srv.Bye(0)
			srv.Close()
		}
		unix.Close(fds[0])
		if n := descriptors(t); n != before {
			t.Errorf("%d descriptors, %d before", n, before)
		}
	})
}

// A server that sends anything: the helper mounts once and at the place that was
// asked for, or not at all.
func FuzzHelper(f *testing.F) {
	memfd(f, "")
	f.Cleanup(closeMemfds)
	reply := packet(0, "LAST\x00\x01\x00\x00")
	f.Add(true, cat(reply, packet(0, "OPEN\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00img\x00"), packet(0, "TYPE\x00\x00\x00\x01"),
		packet(0, "NAMEimg\x00"), packet(0, "MNTP\x40\x00\x00\x00/mn\x00"), packet(0, "OPTSa,b\x00"), packet(0, "MTAB-nx\x00"),
		packet(0, "DOIT\x00\x00\x00\x02"), packet(0, "BYEE\x00\x00\x00\x00")))
	f.Add(false, cat(reply, packet(1, "IOMA\x50\x3f\x00\x00"), packet(0, "BYEE\x00\x00\x00\x05")))
	f.Fuzz(func(t *testing.T, root bool, data []byte) {
		before := descriptors(t)
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		u := asUser
		if root {
			u = asRoot
		}
		h := &Helper{Type: "ext4", Args: []string{"img", "/mn"}, Timeout: time.Minute, Patience: time.Minute}
		fake := &fakeHost{block: true}
		s := newSession(h, fds[1], u, conf{}, fake)
		feed(fds[0], data)
		unix.Shutdown(fds[0], unix.SHUT_WR)
		err = s.run()
		s.close()
		if m := fake.mounted; m != nil {
			if m.target.path != "/mn" || m.flags&^uintptr(mountFlags) != 0 {
				t.Errorf("mounted %+v", m)
			}
			if !root && (m.typ != "fuse" || m.flags&(unix.MS_NOSUID|unix.MS_NODEV) != unix.MS_NOSUID|unix.MS_NODEV) {
				t.Errorf("mounted for a user %+v", m)
			}
			if (err == nil) == fake.gone {
				t.Errorf("ended with %v, unmounted: %v", err, fake.gone)
			}
		} else if err == nil && !s.done {
			t.Error("ended well without BYE")
		}
		unix.Close(fds[0])
		if n := descriptors(t); n != before {
			t.Errorf("%d descriptors, %d before", n, before)
		}
	})
}
