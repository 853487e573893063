//go:build linux && sandboxprobe && !amd64

package main

// int80Getpid is for a machine that has other architectures' system calls.
func int80Getpid() int32 { return 0 }

var archAttempts []attempt
