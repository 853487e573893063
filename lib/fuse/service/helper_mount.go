//go:build linux

package service

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountFlags are the flags that a mount may have. Others make mount(2) do
// something else: bind, move, remount.
const mountFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_SYNCHRONOUS |
	unix.MS_DIRSYNC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME | unix.MS_STRICTATIME |
	unix.MS_LAZYTIME | unix.MS_NOSYMFOLLOW | unix.MS_SILENT

// ours are the options that the helper alone sets.
var ours = []string{"fd", "rootmode", "user_id", "group_id", "source", "fsname", "subtype"}

// forUsers are the options that a server may ask for on behalf of a user.
var forUsers = []string{"allow_other", "default_permissions", "max_read", "blksize", "ro", "rw", "sync", "dirsync"}

// command does what a SimpleReply answers.
func (s *session) command(m *Message) error {
	switch m.Magic {
	case FsopenCmd:
		return s.fsopen(m.Flags)
	case IomapCmd:
		return s.iomap(m.Mode)
	}
	// libfuse's helper takes these in any order.
	if s.phase == attached {
		return fmt.Errorf("after the mount: %w", unix.EINVAL)
	}
	s.phase = asking
	again := func(what string) error { return fmt.Errorf("%s is set already: %w", what, unix.EINVAL) }
	switch m.Magic {
	case SourceCmd:
		if s.source != "" {
			return again("the source")
		}
		s.source = m.Text
	case MntptCmd:
		if s.target != nil {
			return again("the mount point")
		}
		return s.mountpoint(m)
	case MntoptsCmd:
		if s.hasOpts {
			return again("the options")
		}
		return s.mntopts(m.Text)
	case MtaboptsCmd:
		// /etc/mtab is the kernel's table wherever it matters.
		if s.hasMtab {
			return again("the options of mtab")
		}
		s.hasMtab = true
	case MountCmd:
		return s.mount(m.Flags)
	}
	return nil
}

func (s *session) fsopen(flags uint32) error {
	switch {
	case s.phase != opening:
		return fmt.Errorf("again: %w", unix.EINVAL)
	case flags&^fsopenFlags != 0:
		return fmt.Errorf("flags %#x: %w", flags, unix.EINVAL)
	case flags&FsopenFuseblk != 0 && !(s.user.root() && s.host.canBlock()):
		return fmt.Errorf("block devices are mounted for root only: %w", unix.EPERM)
	}
	s.block = flags&FsopenFuseblk != 0
	s.phase = asking
	return nil
}

func (s *session) iomap(mode uint32) error {
	switch {
	case mode != IomapOptional && mode != IomapMandatory:
		return fmt.Errorf("mode %#x: %w", mode, unix.EINVAL)
	case s.phase == attached:
		return fmt.Errorf("after the mount: %w", unix.EINVAL)
	}
	if err := s.host.iomap(s.fuse); err != nil && mode == IomapMandatory {
		return fmt.Errorf("this kernel, or this user, has no fuse-iomap: %w", err)
	}
	return nil
}

// mountpoint looks at where to mount, and holds on to it.
func (s *session) mountpoint(m *Message) error {
	switch m.Mode {
	case 0, unix.S_IFDIR, unix.S_IFREG:
	default:
		return fmt.Errorf("format %#o: %w", m.Mode, unix.EINVAL)
	}
	if !slices.Contains(s.h.Args, m.Text) {
		return fmt.Errorf("%s was not asked for: %w", m.Text, unix.EINVAL)
	}
	t, err := s.host.target(m.Text)
	if err != nil {
		return err
	}
	switch {
	case t.format != unix.S_IFDIR && t.format != unix.S_IFREG:
		err = fmt.Errorf("%s is neither a folder nor a regular file: %w", m.Text, unix.EACCES)
	case m.Mode == unix.S_IFDIR && t.format != unix.S_IFDIR:
		err = unix.ENOTDIR
	case m.Mode == unix.S_IFREG && t.format != unix.S_IFREG:
		err = unix.EISDIR
	}
	if err != nil {
		t.close()
		return err
	}
	s.target = t
	return nil
}

// mntopts takes options that users may have, and root any but ours.
func (s *session) mntopts(text string) error {
	opts := strings.Split(text, ",")
	for _, o := range opts {
		key, _, _ := strings.Cut(o, "=")
		switch {
		case slices.Contains(ours, key):
			return fmt.Errorf("option %s is not for the server to set: %w", key, unix.EINVAL)
		case (key == "allow_other" || key == "allow_root") && !s.user.root() && !s.conf.userAllowOther:
			return fmt.Errorf("option %s needs user_allow_other in /etc/fuse.conf: %w", key, unix.EPERM)
		case !s.user.root() && o != "" && !slices.Contains(forUsers, key):
			return fmt.Errorf("option %s is for root: %w", key, unix.EPERM)
		}
	}
	s.options, s.hasOpts = slices.DeleteFunc(opts, func(o string) bool { return o == "" }), true
	return nil
}

// mount mounts.
func (s *session) mount(flags uint32) error {
	switch {
	case s.source == "":
		return fmt.Errorf("no source: %w", unix.EINVAL)
	case s.target == nil:
		return fmt.Errorf("no mount point: %w", unix.EINVAL)
	case flags&^uint32(mountFlags) != 0:
		return fmt.Errorf("flags %#x: %w", flags&^uint32(mountFlags), unix.EINVAL)
	}
	spec := &mountSpec{
		typ: "fuse", source: s.source, target: s.target,
		flags: uintptr(flags) | restrictions(s.h.Args),
	}
	spec.subtype, _ = Subtype(s.h.Type)
	if s.block {
		spec.typ = "fuseblk"
	}
	if !s.user.root() {
		spec.flags |= unix.MS_NOSUID | unix.MS_NODEV
	}
	spec.options = append(slices.Clone(s.options),
		"fd="+strconv.Itoa(s.fuse),
		"rootmode="+strconv.FormatUint(uint64(s.target.format), 8),
		"user_id="+strconv.Itoa(s.user.uid),
		"group_id="+strconv.Itoa(s.user.gid))
	mnt, err := s.host.mount(spec)
	if err != nil {
		return err
	}
	s.mnt, s.phase = mnt, attached
	return nil
}

// restrictions returns the flags by which the user who mounts wants to be safe
// from what is mounted: no server can leave them out.
func restrictions(args []string) uintptr {
	var flags uintptr
	for i, a := range args {
		list, ok := strings.CutPrefix(a, "-o")
		if !ok {
			continue
		}
		if list == "" && i+1 < len(args) {
			list = args[i+1]
		}
		for o := range strings.SplitSeq(list, ",") {
			switch o {
			case "ro":
				flags |= unix.MS_RDONLY
			case "nosuid":
				flags |= unix.MS_NOSUID
			case "nodev":
				flags |= unix.MS_NODEV
			case "noexec":
				flags |= unix.MS_NOEXEC
			case "nosymfollow":
				flags |= unix.MS_NOSYMFOLLOW
			}
		}
	}
	return flags
}

// mountSpec is a mount to make.
type mountSpec struct {
	typ, subtype string
	source       string
	options      []string // of the superblock
	flags        uintptr  // MS_*
	target       *target
}

// target is a mount point that was looked up.
type target struct {
	fd     int // O_PATH
	path   string
	format uint32 // S_IFDIR, S_IFREG
}

func (t *target) close() {
	if t.fd >= 0 {
		unix.Close(t.fd)
		t.fd = -1
	}
}

// errOldKernel says that the mount API of Linux 5.2 cannot do it.
func errOldKernel(err error) bool { return errors.Is(err, unix.ENOSYS) }
