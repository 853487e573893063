//go:build !sandboxprobe

package fuse2fs

import "github.com/e2kit/e2kit/lib/fuse"

// xattrHook answers for names that a build with the tag sandboxprobe has.
func xattrHook(*fuse.Request, []byte) ([]byte, bool) { return nil, false }
