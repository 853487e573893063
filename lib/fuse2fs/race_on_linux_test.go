//go:build race

package fuse2fs_test

// raceEnabled: everything takes ten times as long under the race detector.
const raceEnabled = true
