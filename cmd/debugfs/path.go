package main

import (
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// maxDepth bounds how deep directories are followed upwards or downwards.
const maxDepth = 4096

// pathOf returns the path of directory ino from root on, by its "..".
func pathOf(r *ext2fs.Raw, root, ino ondisk.Ino) string {
	var parts []string
	for depth := 0; ino != root && ino != ondisk.RootIno; depth++ {
		up, err := r.Lookup(ino, "..")
		if err != nil || depth > maxDepth || up == ino {
			return fmt.Sprintf("<%d>", ino) + join(parts)
		}
		name := nameIn(r, up, ino)
		if name == "" {
			return fmt.Sprintf("<%d>", ino) + join(parts)
		}
		parts = append(parts, name)
		ino = up
	}
	if len(parts) == 0 {
		return "/"
	}
	return join(parts)
}

func join(parts []string) string {
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	return b.String()
}

// nameIn returns the first name that ino has in dir, "" if none.
func nameIn(r *ext2fs.Raw, dir, ino ondisk.Ino) string {
	found := ""
	_ = r.Dirents(dir, 0, func(e *ext2fs.RawDirent) bool { // what is damaged has no name
		if n := string(e.Name); e.Ino == ino && n != "." && n != ".." {
			found = n
		}
		return found == ""
	})
	return found
}
