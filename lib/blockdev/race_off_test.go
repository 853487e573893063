//go:build !race

package blockdev_test

const raceEnabled = false
