//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/fuse/service"
)

// otherRole does what the program was started for if that is not the command
// that mounts: it may be the server process of a launcher or of a mount service,
// or the mount helper.
//
// Installed set-uid root it keeps that right as the mount helper only.
func otherRole(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int, done bool) {
	helper := len(args) > 0 && filepath.Base(args[0]) == "mount.fuse2fs" ||
		len(args) > 1 && args[1] == "--mount-helper"
	if helper {
		if len(args) > 1 && args[1] == "--mount-helper" {
			args = append([]string{"mount.fuse2fs"}, args[2:]...)
		}
		return mountHelper(args[1:], stdin, stdout, stderr), true
	}
	if err := dropSetuid(); err != nil {
		cli.Message(stderr, "fuse2fs", err)
		return exitUsage, true
	}
	if len(args) == 2 && args[1] == serveArg {
		return serve(), true
	}
	if len(args) > 1 && args[1] == serviceArg {
		return serveService(args[2:], 3, stderr), true
	}
	fd, ok, err := service.Activated()
	switch {
	case !ok:
		return 0, false
	case err != nil:
		cli.Message(stderr, "fuse2fs", err)
		return linger(exitUsage), true
	}
	return linger(serveService(args[1:], fd, stderr)), true
}

// dropSetuid gives up for good what a set-uid or set-gid program has over its
// caller.
func dropSetuid() error {
	if uid, gid := os.Getuid(), os.Getgid(); uid != os.Geteuid() || gid != os.Getegid() {
		if err := syscall.Setresgid(gid, gid, gid); err != nil {
			return fmt.Errorf("giving up the rights of a set-gid program: %w", err)
		}
		if err := syscall.Setresuid(uid, uid, uid); err != nil {
			return fmt.Errorf("giving up the rights of a set-uid program: %w", err)
		}
	}
	return nil
}
