//go:build race

package blockdev_test

// raceEnabled: sync.Pool drops things on purpose under the race detector.
const raceEnabled = true
