package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/populate"
)

// memoryLimit is from which size on memory is collected more often. With many
// files about half of it is in use; without a limit as much again would wait to
// be collected.
const memoryLimit = 228 << 20

// loadSource reads what the file system is to be filled with, before anything
// is written.
func (m *maker) loadSource() error {
	if !m.fills() {
		return nil
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // GOMEMLIMIT is not set
		debug.SetMemoryLimit(memoryLimit)
	}
	src, err := m.findSource()
	if err != nil {
		return err
	}
	o := populate.Options{
		Owner: m.owner, MapUID: m.mapUID, MapGID: m.mapGID, Devices: m.devices, Exclude: m.exclude,
		Contexts: m.contexts, NoXattrs: m.noCopyXattrs, Reproducible: m.reproducible,
	}
	o.Warn = func(path, what string) { m.Warn(fmt.Errorf("%s: %s", path, what)) }
	if os.Getenv("SOURCE_DATE_EPOCH") != "" {
		t, err := now()
		if err != nil {
			return err
		}
		o.MaxTime, o.Reproducible = &t, true
	}
	if own := m.ownPath(); own != "" {
		m.Warn(fmt.Errorf("%s is left out of what is copied: it is where the file system goes", m.device))
		o.Exclude = append(slices.Clip(o.Exclude), own)
	}
	p := m.newFillProgress()
	o.Progress = p.step
	o.Prepare = func(fs *ext2fs.FS) error {
		if m.huge == nil {
			return nil
		}
		if err := m.makeHugeFiles(fs); err != nil {
			return err
		}
		p.begin()
		return nil
	}
	tree, err := populate.Load(m.ctx, src, o)
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fail("%s: %w (TMPDIR names another place for temporary files)", m.filling.name(), err)
		}
		err = elsewhere(err)
		if errors.Is(err, populate.ErrAmbiguous) {
			return fail("%s: %w (by --ref)", m.filling.name(), err)
		}
		return fail("%s: %w", m.filling.name(), err)
	}
	m.tree, m.fillProgress = tree, p
	return nil
}

// elsewhere adds to an error about temporary files how to have them elsewhere.
func elsewhere(err error) error {
	var temp *populate.TempError
	if errors.As(err, &temp) {
		return fmt.Errorf("%w (TMPDIR names another place for temporary files)", err)
	}
	return err
}

// ownPath returns the pattern that leaves the image file itself out of the
// directory that it lies in and is filled with; "" if it does not.
func (m *maker) ownPath() string {
	if m.source == "" || !m.target.exists || m.target.block {
		return ""
	}
	dir, err1 := filepath.EvalSymlinks(m.source)
	file, err2 := filepath.EvalSymlinks(m.device)
	if err1 == nil {
		dir, err1 = filepath.Abs(dir)
	}
	if err2 == nil {
		file, err2 = filepath.Abs(file)
	}
	if err1 != nil || err2 != nil {
		return ""
	}
	rel, err := filepath.Rel(dir, file)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return ""
	}
	var b strings.Builder
	b.WriteByte('/')
	for _, c := range []byte(rel) {
		if strings.IndexByte(`*?[\`, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// findSource tells the kinds of sources apart. A tar of an OCI image layout is
// taken as a tar, unless it is said which of its images is meant.
func (m *maker) findSource() (populate.Source, error) {
	if len(m.layers) > 0 {
		return populate.Layers(m.layers...), nil
	}
	if m.source == "-" {
		if m.ref != "" || m.platform != "" {
			return nil, cli.Usagef("--ref and --platform need an OCI image layout in a file or directory, not on standard input")
		}
		return populate.TarReader(m.stoppable(m.Stdin)), nil
	}
	st, err := os.Stat(m.source)
	if err != nil {
		return nil, fail("-d: %w", err)
	}
	oci := m.ref != "" || m.platform != ""
	if st.IsDir() {
		if _, err := os.Stat(filepath.Join(m.source, "oci-layout")); err == nil {
			oci = true
		}
	}
	switch {
	case oci:
		return populate.OCI(m.source, populate.OCIOptions{Ref: m.ref, Platform: m.platform}), nil
	case st.IsDir():
		return populate.Dir(m.source), nil
	}
	return populate.Tar(m.source), nil
}

// setRoot gives the root directory what -E and the configuration say of it.
func (m *maker) setRoot() {
	if m.tree == nil {
		return
	}
	var owner *populate.Owner
	var mode *uint16
	if m.opts.RootUID != 0 || m.opts.RootGID != 0 {
		owner = &populate.Owner{UID: m.opts.RootUID, GID: m.opts.RootGID}
	}
	if m.opts.RootMode != 0 {
		mode = &m.opts.RootMode
	}
	m.tree.SetRoot(owner, mode)
}

// derive gives a reproducible file system what else is random, or of this
// machine and moment, from what it is filled with and its label.
func (m *maker) derive() error {
	if !m.reproducible && (m.tree == nil || os.Getenv("SOURCE_DATE_EPOCH") == "") {
		return nil
	}
	o := &m.opts
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n", m.fsType, o.Label)
	if m.tree != nil {
		sum, err := m.tree.Digest()
		if err != nil {
			return fail("%s: %w", m.filling.name(), err)
		}
		h.Write(sum[:])
	}
	sum := h.Sum(nil)
	if m.uuid == "" {
		o.UUID = derivedUUID(sum[:16])
	}
	if m.hashSeed == nil {
		o.HashSeed = derivedUUID(sum[16:])
	}
	if !timeGiven() {
		o.Time = 1 // 0 would be now
		if m.tree != nil {
			o.Time = max(m.tree.Newest(), 1)
		}
	}
	o.NodeName, o.DeviceName = "", ""
	o.LazyItable = false // what the kernel is to zero is not the same everywhere before
	return nil
}

// derivedUUID makes a UUID, of version 8, of bytes that a hash gave.
func derivedUUID(b []byte) (u [16]byte) {
	copy(u[:], b)
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return u
}
