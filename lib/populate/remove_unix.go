//go:build !windows

package populate

import "os"

// removeOpen takes the name of an open file away, so that nothing is left
// behind however the program ends.
func removeOpen(name string) error { return os.Remove(name) }
