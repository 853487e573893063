package sandbox

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts the command that command makes in new namespaces, which are
// empty: of the network, of IPC, of host names and of cgroups. It returns their
// names, or none where the process may not make any and the command shares
// those of the caller; command is called once more then.
//
// A user who may not make them makes them in a user namespace. There is none of
// mounts: a copy of all mounts keeps those busy that others want to unmount.
func Start(command func() *exec.Cmd) (cmd *exec.Cmd, namespaces []string, err error) {
	cmd = command()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	namespaces = []string{"net", "ipc", "uts", "cgroup"}
	if uid := os.Geteuid(); uid != 0 {
		gid := os.Getegid()
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		namespaces = append([]string{"user"}, namespaces...)
	}
	if err = cmd.Start(); err == nil {
		return cmd, namespaces, nil
	}
	// Whatever it was, it is no reason not to serve.
	cmd = command()
	return cmd, nil, cmd.Start()
}
