//go:build !linux

package sandbox

import (
	"errors"
	"os/exec"
)

// Confine reports that there is no sandbox.
func Confine(Options) ([]*Missing, error) {
	return []*Missing{{"sandbox", errors.ErrUnsupported}}, nil
}

// Tighten does nothing: Confine has reported that.
func Tighten(Options) error { return nil }

// Start starts the command; there are no namespaces.
func Start(command func() *exec.Cmd) (cmd *exec.Cmd, namespaces []string, err error) {
	cmd = command()
	return cmd, nil, cmd.Start()
}

// Probe reports that there is no sandbox.
func Probe() []Part {
	return []Part{{Name: "sandbox", Detail: "Linux only"}}
}
