//go:build !linux

package extract

import (
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs"
)

// Dir takes trees out to a directory on Linux only: elsewhere files cannot have
// all that they have in the image.
func Dir(*ext2fs.Raw, []Root, string, Options) error {
	return fmt.Errorf("to a directory on Linux only, take a tar archive: %w", errors.ErrUnsupported)
}
