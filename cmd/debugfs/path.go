package main

import (
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// maxDepth bounds how deep directories are followed upwards or downwards.
const maxDepth = 4096

// paths are the paths of directories, found by their ".." and remembered.
type paths struct {
	r     *ext2fs.Raw
	known map[ondisk.Ino]string
}

// maxPaths is how many paths are remembered.
const maxPaths = 1 << 16

func newPaths(r *ext2fs.Raw) *paths { return &paths{r, map[ondisk.Ino]string{}} }

// of returns the path of a directory. A part that cannot be named is <inode>.
func (p *paths) of(ino ondisk.Ino) string {
	of := ino
	var parts []string
	base := ""
	for depth := 0; ino != ondisk.RootIno; depth++ {
		if k, ok := p.known[ino]; ok {
			base = k
			break
		}
		up, err := p.r.Lookup(ino, "..")
		name := ""
		if err == nil && up != ino && depth < maxDepth {
			name = nameIn(p.r, up, ino)
		}
		if name == "" {
			base = fmt.Sprintf("<%d>", ino)
			break
		}
		parts = append(parts, name)
		ino = up
	}
	path := base + join(parts)
	if path == "" {
		path = "/"
	}
	if len(p.known) >= maxPaths {
		clear(p.known)
	}
	p.known[of] = strings.TrimSuffix(path, "/")
	return path
}

// pathOf returns the path of directory ino from root on.
func pathOf(r *ext2fs.Raw, root, ino ondisk.Ino) string {
	p := newPaths(r)
	p.known[root] = ""
	return p.of(ino)
}

func join(parts []string) string {
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	return b.String()
}

// joinPath returns the path of name in a directory.
func joinPath(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// nameIn returns the first name that ino has in dir, "" if none.
func nameIn(r *ext2fs.Raw, dir, ino ondisk.Ino) string {
	found := ""
	_ = r.Dirents(dir, 0, func(e *ext2fs.RawDirent) bool { // what is damaged has no name
		if e.Ino == ino && !isDots(e.Name) {
			found = string(e.Name)
		}
		return found == ""
	})
	return found
}
