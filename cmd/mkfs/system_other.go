//go:build !linux

package main

import "os"

// Elsewhere than on Linux file systems are made in image files only: package
// blockdev opens nothing else.

func statTarget(path string) (block bool, rdev uint64, err error) {
	_, err = os.Stat(path)
	return false, 0, err
}

func encodeDev(uint64) uint32 { return 0 }

func sysNumber(uint64, string) (int64, bool) { return 0, false }

func mountedOn(string) (string, error) { return "", nil }
