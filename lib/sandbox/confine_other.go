//go:build !linux

package sandbox

import "errors"

// Confine reports that there is no sandbox.
func Confine(Options) ([]*Missing, error) {
	return []*Missing{{"sandbox", errors.ErrUnsupported}}, nil
}
