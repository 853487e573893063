//go:build !race

package fuse2fs_test

const raceEnabled = false
