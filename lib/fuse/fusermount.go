//go:build linux

package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var errNoFusermount = errors.New("no fusermount3 found in PATH")

func findFusermount() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", errNoFusermount
}

// runFusermount runs the helper; what it complains of becomes the error.
func runFusermount(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if msg := strings.TrimSpace(stderr.String()); msg != "" {
		return errors.New(msg)
	}
	return fmt.Errorf("%s: %w", cmd.Path, err)
}

// fusermount mounts through the setuid helper: it opens /dev/fuse, mounts, and
// sends the descriptor over the socket whose number it finds in _FUSE_COMMFD.
func (m *Mount) fusermount() error {
	path, err := findFusermount()
	if err != nil {
		return err
	}
	opts := flagNames(m.opts.Flags)
	if m.opts.Source != "" {
		opts = append(opts, "fsname="+escapeOption(m.opts.Source))
	}
	if m.opts.Subtype != "" {
		opts = append(opts, "subtype="+escapeOption(m.opts.Subtype))
	}
	if m.opts.AllowOther {
		opts = append(opts, "allow_other")
	}
	if m.opts.DefaultPermissions {
		opts = append(opts, "default_permissions")
	}
	if m.opts.MaxRead > 0 {
		opts = append(opts, "max_read="+strconv.Itoa(m.opts.MaxRead))
	}
	if m.opts.AutoUnmount {
		opts = append(opts, "auto_unmount")
	}

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	args := []string{"--", m.Dir}
	if len(opts) > 0 {
		args = append([]string{"-o", strings.Join(opts, ",")}, args...)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	if m.opts.AutoUnmount {
		// The helper stays, to unmount when our end is closed.
		err = cmd.Start()
		theirs.Close()
	} else {
		err = runFusermount(cmd)
		theirs.Close()
	}
	if err == nil {
		m.fd, err = receiveFd(pair[0])
		if err != nil && m.opts.AutoUnmount {
			cmd.Wait()
		}
	}
	if err == nil && m.opts.AutoUnmount {
		m.comm = pair[0]
	} else {
		unix.Close(pair[0])
	}
	if err != nil {
		return err
	}
	m.attached, m.helper = true, true
	return nil
}

// receiveFd reads one byte and the descriptor that comes with it.
func receiveFd(sock int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(sock, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if n == 0 {
		return -1, errors.New("fusermount sent no descriptor")
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return -1, err
	}
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("fusermount sent no descriptor")
}

// escapeOption protects what separates options.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

func fusermountUnmount(dir string, lazy bool) error {
	path, err := findFusermount()
	if err != nil {
		return err
	}
	args := []string{"-u", "--", dir}
	if lazy {
		args = []string{"-u", "-z", "--", dir}
	}
	return runFusermount(exec.Command(path, args...))
}
