//go:build !unix

package fsck

import (
	"errors"
	"os"
	"runtime"
)

func mapFile(*os.File, int64, int) ([]byte, error) {
	return nil, errors.New("there are no mappings of files on " + runtime.GOOS)
}

func unmapFile([]byte) {}
