//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/e2kit/e2kit/internal/cli"
)

// statusEnv tells the launcher in the background which descriptor its exit
// status goes to while somebody waits for it.
const statusEnv = "FUSE2FS_STATUS_FD"

const statusFd = 3

// background runs the launcher as a daemon, and returns with its verdict: that
// the mount can be used, or why not, which it has printed.
func background(stderr io.Writer) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	closeOnExec()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", statusEnv, statusFd))
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("starting in the background: %w", err)
	}
	status := make([]byte, 1)
	if n, _ := r.Read(status); n == 1 && status[0] == exitOK {
		return nil
	}
	code := exitOpen
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() > 0 {
		code = cmd.ProcessState.ExitCode()
	}
	return &cli.Exit{Status: code}
}

// closeOnExec keeps from programs started later the descriptors that were open
// when this one was: a daemon would hold them, and locks on them, for ever.
func closeOnExec() { _ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }

// inBackground returns a ready function that also tells who waits, and lets go
// of the terminal.
func inBackground(ready func([]string)) func([]string) {
	unix.CloseOnExec(statusFd)
	os.Unsetenv(statusEnv)
	return func(warnings []string) {
		ready(warnings)
		log, err := logFile()
		if err != nil {
			ready([]string{err.Error()})
		} else {
			for fd := 0; fd <= 2; fd++ {
				_ = unix.Dup3(int(log.Fd()), fd, 0)
			}
			log.Close()
		}
		_ = os.Chdir("/")
		status := os.NewFile(statusFd, "status")
		_, _ = status.Write([]byte{exitOK})
		status.Close()
	}
}

// logFile returns where messages go once nobody watches the terminal.
func logFile() (*os.File, error) {
	if path := os.Getenv("FUSE2FS_LOGFILE"); path != "" {
		return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	}
	return os.OpenFile(os.DevNull, os.O_RDWR, 0)
}
