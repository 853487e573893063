// Package testfs is what tests of this suite share: images made by the real
// mke2fs over a matrix of features, mounts by the kernel's own ext4, snapshots
// of trees and their differences, a deterministic workload with a model of what
// it leaves, images that the kernel left dirty, sweeps over crash states, and
// mutated images.
//
// The package believes nothing that the suite says about itself: each image that
// a test asks for is checked by C e2fsck when the test ends. An oracle that is
// missing skips the test with a reason, or fails it where CI=true.
//
// It is for Linux. Tests of portable packages that use it live in files named
// _linux_test.go. Mounting by the kernel takes root.
package testfs
