package populate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
)

// Whiteouts of a layer, as the OCI image specification has them: names of files
// that are not there and say what of the layers below is not either.
const (
	whPrefix = ".wh."
	whMeta   = ".wh..wh." // names of a union file system's own, but for the next
	whOpaque = ".wh..wh..opq"
)

// Layers is a list of layers, the lowest first, as a source: tar archives,
// perhaps compressed, whose whiteouts are applied.
func Layers(paths ...string) Source { return layerSource(paths) }

type layerSource []string

func (s layerSource) load(ctx context.Context, t *Tree) error {
	for i, p := range s {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		t.closers = append(t.closers, f)
		sec, err := t.spool(ctx, f)
		if err == nil {
			err = t.addLayer(ctx, sec, int32(i+1))
		}
		if err != nil {
			return fmt.Errorf("layer %q: %w", p, inputErr(err))
		}
	}
	return nil
}

// addLayer applies a layer to the tree. What a whiteout hides is of the layers
// below, wherever in the archive it stands.
func (t *Tree) addLayer(ctx context.Context, sec section, layer int32) error {
	b := &tarBlob{sec}
	return readTar(ctx, sec, func(h *tarHeader) error {
		dir, base := path.Split(strings.TrimRight(h.name, "/"))
		var err error
		switch {
		case base == whOpaque:
			err = t.hideAll(dir, layer)
		case strings.HasPrefix(base, whMeta):
		case strings.HasPrefix(base, whPrefix):
			err = t.hideName(dir, base[len(whPrefix):], layer)
		default:
			err = t.addHeader(b, h, layer)
		}
		return entryErr("entry", h.name, err)
	})
}

// lowerDir returns a directory that a whiteout is in, nil if there is none.
func (t *Tree) lowerDir(dir string) (*node, error) {
	p, err := split(dir)
	if err != nil {
		return nil, err
	}
	n, err := t.walkTo(p, false, 0)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return n, err
}

// hideAll hides everything that layers below have in a directory.
func (t *Tree) hideAll(dir string, layer int32) error {
	n, err := t.lowerDir(dir)
	if n == nil || err != nil {
		return err
	}
	for name := range n.kids {
		t.hide(n, name, layer)
	}
	return nil
}

func (t *Tree) hideName(dir, name string, layer int32) error {
	if name == "" || name == "." || name == ".." {
		return badInput("a whiteout of %q", name)
	}
	n, err := t.lowerDir(dir)
	if n == nil || err != nil {
		return err
	}
	if _, ok := n.kids[name]; ok {
		t.hide(n, name, layer)
	}
	return nil
}

// hide takes a name out that is not of the layer, and of a directory that is, or
// that holds something that is, what is not.
func (t *Tree) hide(dir *node, name string, layer int32) {
	d := dir.kids[name]
	if d.n.isDir() {
		for k := range d.n.kids {
			t.hide(d.n, k, layer)
		}
		if d.layer == layer || len(d.n.kids) > 0 {
			return
		}
	} else if d.layer == layer {
		return
	}
	t.remove(dir, name)
}
