package fuse2fs

import (
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/fuse"
)

func (s *Server) getxattr(r *fuse.Request) {
	in, ok := fuse.In[fuse.GetxattrIn](r)
	name, ok2 := r.Text()
	if !ok || !ok2 {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	if value, ok := xattrHook(r, name); ok {
		s.sized(r, value, int(in.Size), nil)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	value, err := ip.Getxattr(string(name))
	s.sized(r, value, int(in.Size), err)
}

func (s *Server) listxattr(r *fuse.Request) {
	in, ok := fuse.In[fuse.GetxattrIn](r)
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	names, err := ip.Listxattr()
	var list []byte
	for _, name := range names {
		// The kernel's ext4 asks for CAP_SYS_ADMIN, see adminIoctl.
		if r.UID() != 0 && strings.HasPrefix(name, "trusted.") {
			continue
		}
		list = append(append(list, name...), 0)
	}
	s.sized(r, list, int(in.Size), err)
}

// sized answers with data if it fits in size bytes, with its length if size is
// 0, else with ERANGE.
func (s *Server) sized(r *fuse.Request, data []byte, size int, err error) {
	switch {
	case err != nil:
		s.fail(r, err)
	case size == 0:
		fuse.Out[fuse.GetxattrOut](r).Size = uint32(len(data))
		r.Reply(0)
	case len(data) > size:
		r.ReplyErr(syscall.ERANGE)
	default:
		r.ReplyBytes(data) // which OutBuf may be too small for
	}
}

func (s *Server) setxattr(r *fuse.Request) {
	in, ok := r.Setxattr()
	name, ok2 := r.Text()
	value := r.Payload()
	if !ok || !ok2 || int(in.Size) != len(value) {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	kill := in.SetxattrFlags&fuse.SetxattrACLKillSgid != 0
	err := ip.Setxattr(string(name), value, int(in.Flags), kill)
	for s.again(r, err) {
		err = ip.Setxattr(string(name), value, int(in.Flags), kill)
	}
	s.done(r, err)
}

func (s *Server) removexattr(r *fuse.Request) {
	name, ok := r.Text()
	if !ok {
		r.ReplyErr(syscall.EINVAL)
		return
	}
	ip := s.node(r)
	if ip == nil {
		return
	}
	defer ip.Put()
	s.done(r, ip.Removexattr(string(name)))
}
