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
	b := t.addBlob(&tarBlob{sec})
	return readTar(ctx, t.store, sec, func(h *tarHeader) error {
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

// lowerDir returns a directory that a whiteout is in, 0 if there is none.
func (t *Tree) lowerDir(dir string) (nodeID, error) {
	p, err := split(dir)
	if err != nil {
		return 0, err
	}
	id, err := t.walkTo(p, false, 0)
	if notThere(err) && !errors.Is(err, syscall.ELOOP) {
		return 0, nil
	}
	return id, err
}

// hideAll hides everything that layers below have in a directory.
func (t *Tree) hideAll(dir string, layer int32) error {
	id, err := t.lowerDir(dir)
	if id == 0 || err != nil {
		return err
	}
	return t.hideBelow(id, layer)
}

func (t *Tree) hideBelow(dir nodeID, layer int32) error {
	return t.each(dir, func(name string, d dirent) error { return t.hide(dir, name, d, layer) })
}

func (t *Tree) hideName(dir, name string, layer int32) error {
	if name == "" || name == "." || name == ".." {
		return badInput("a whiteout of %q", name)
	}
	id, err := t.lowerDir(dir)
	if id == 0 || err != nil {
		return err
	}
	d, ok, err := t.lookup(id, name)
	if !ok || err != nil {
		return err
	}
	return t.hide(id, name, d, layer)
}

// hide takes a name out that is not of the layer, and of a directory that is, or
// that holds something that is, what is not.
func (t *Tree) hide(dir nodeID, name string, d dirent, layer int32) error {
	if d.dir {
		if err := t.hideBelow(d.id, layer); err != nil {
			return err
		}
		left, err := t.list(d.id, "", false, make([]named, 0, 1))
		if err != nil || len(left) > 0 {
			return err
		}
	}
	if d.layer == layer {
		return nil
	}
	return t.remove(dir, name, d)
}
