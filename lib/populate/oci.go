package populate

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// OCIOptions choose an image of a layout that has several.
type OCIOptions struct {
	Ref      string // the name in the layout's index; "": the only one
	Platform string // os/architecture[/variant]; "": linux and this machine's
}

// ErrAmbiguous is what the error of a layout with several images wraps where
// OCIOptions.Ref names none of them.
var ErrAmbiguous = badInput("one must be named")

// OCI is an image of an OCI image layout, a directory or a tar of one, as a
// source. Everything that is used has the digest and the size that the image
// says.
func OCI(layout string, o OCIOptions) Source { return &ociSource{layout, o} }

type ociSource struct {
	path string
	opt  OCIOptions
}

const (
	maxJSON  = 8 << 20 // bytes of an index, a manifest or a configuration
	maxIndex = 4       // indexes in indexes
)

// Media types.
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	refName        = "org.opencontainers.image.ref.name"
)

// descriptor says where a blob is.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
	} `json:"platform"`
}

// document is an index or a manifest, whichever it is.
type document struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// layout finds the files of an image layout.
type layout interface {
	file(name string) (section, error)
}

func (s *ociSource) load(ctx context.Context, t *Tree) error {
	l, err := t.openLayout(ctx, s.path)
	if err == nil {
		err = t.loadImage(ctx, l, s.opt)
	}
	if err != nil {
		return fmt.Errorf("image %q: %w", s.path, inputErr(err))
	}
	return nil
}

func (t *Tree) openLayout(ctx context.Context, p string) (layout, error) {
	st, err := os.Stat(p)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := os.OpenRoot(p)
		if err != nil {
			return nil, err
		}
		t.closers = append(t.closers, root)
		return &dirLayout{t, root}, nil
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	t.closers = append(t.closers, f)
	sec, err := t.spool(ctx, f)
	if err != nil {
		return nil, err
	}
	l := tarLayout{}
	err = readTar(ctx, t.store, sec, func(h *tarHeader) error {
		if (h.typ == '0' || h.typ == '7') && h.sparse == 0 {
			if name := path.Clean("/" + h.name)[1:]; len(name) <= ondisk.NameLen { // no longer one is looked for
				l[name] = section{io.NewSectionReader(sec.r, h.at, h.size), h.size}
			}
		}
		if len(l) > 1<<16 {
			return badInput("more than 65536 files")
		}
		return nil
	})
	return l, err
}

type dirLayout struct {
	t    *Tree
	root *os.Root
}

func (l *dirLayout) file(name string) (section, error) {
	f, err := l.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a fifo is not waited for
	if err != nil {
		return section{}, err
	}
	l.t.closers = append(l.t.closers, f)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = badInput("%q is not a regular file", name)
	}
	if err != nil {
		return section{}, err
	}
	return section{f, st.Size()}, nil
}

type tarLayout map[string]section

func (l tarLayout) file(name string) (section, error) {
	s, ok := l[name]
	if !ok {
		return s, fmt.Errorf("%q: %w", name, syscall.ENOENT)
	}
	return s, nil
}

// loadImage finds the image and applies its layers.
func (t *Tree) loadImage(ctx context.Context, l layout, o OCIOptions) error {
	var version struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := readJSON(l, "oci-layout", &version); err != nil {
		return fmt.Errorf("it is not an OCI image layout: %w", err)
	}
	if !strings.HasPrefix(version.Version, "1.") {
		return badInput("image layout version %q; 1.x is read", version.Version)
	}
	var index document
	if err := readJSON(l, "index.json", &index); err != nil {
		return err
	}
	m, err := chooseManifest(l, &index, o, 0)
	if err != nil {
		return err
	}
	diffs, err := diffIDs(l, m)
	if err != nil {
		return err
	}
	for i, d := range m.Layers {
		if err := t.loadLayer(ctx, l, d, diffs[i], int32(i+1)); err != nil {
			return fmt.Errorf("layer %s: %w", d.Digest, err)
		}
	}
	return nil
}

// readJSON reads a file of the layout that is not named by a digest.
func readJSON(l layout, name string, v any) error {
	s, err := l.file(name)
	if err != nil {
		return err
	}
	if s.size > maxJSON {
		return badInput("%s has %d bytes; at most %d are read", name, s.size, maxJSON)
	}
	b, err := io.ReadAll(io.NewSectionReader(s.r, 0, s.size))
	if err != nil {
		return err
	}
	return parseJSON(name, b, v)
}

func parseJSON(what string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return badInput("%s: %v", what, err)
	}
	return nil
}

// chooseManifest returns the manifest of the image that o names.
func chooseManifest(l layout, index *document, o OCIOptions, depth int) (*document, error) {
	if depth > maxIndex {
		return nil, badInput("more than %d indexes in each other", maxIndex)
	}
	list := index.Manifests
	if depth == 0 {
		var err error
		if list, err = chooseRef(list, o.Ref); err != nil {
			return nil, err
		}
	}
	want := o.Platform
	if want == "" {
		want = "linux/" + runtime.GOARCH
	}
	var have []string
	for _, d := range list {
		if p := d.Platform; p != nil && !matchPlatform(want, p.OS, p.Architecture, p.Variant) {
			have = append(have, strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/"))
			continue
		}
		var doc document
		b, err := readBlob(l, d)
		if err == nil {
			err = parseJSON(d.Digest, b, &doc)
		}
		if err != nil {
			return nil, err
		}
		switch kind := d.MediaType; {
		case kind == ociIndex, kind == dockerIndex, kind == "" && doc.Manifests != nil:
			m, err := chooseManifest(l, &doc, o, depth+1)
			var none *noPlatformError
			if errors.As(err, &none) {
				have = append(have, none.have...)
				continue
			}
			return m, err
		case kind == ociManifest, kind == dockerManifest, kind == "":
			if d.Platform == nil && o.Platform != "" {
				if ok, what := configMatches(l, &doc, want); !ok {
					have = append(have, what)
					continue
				}
			}
			return &doc, nil
		}
		have = append(have, "media type "+d.MediaType)
	}
	return nil, &noPlatformError{want, have}
}

// noPlatformError says that there is no image for a platform.
type noPlatformError struct {
	want string
	have []string
}

func (e *noPlatformError) Error() string {
	return fmt.Sprintf("no image for %s; there are: %s", e.want, strings.Join(e.have, ", "))
}

func (e *noPlatformError) Unwrap() error { return syscall.EINVAL }

// chooseRef returns the descriptors of a name.
func chooseRef(list []descriptor, ref string) ([]descriptor, error) {
	names := map[string]bool{}
	var out []descriptor
	for _, d := range list {
		n := d.Annotations[refName]
		names[n] = true
		if ref == "" || n == ref {
			out = append(out, d)
		}
	}
	switch {
	case len(out) == 0:
		return nil, badInput("it has no image named %q; there are: %s", ref, quoted(names))
	case ref == "" && len(names) > 1:
		return nil, fmt.Errorf("it has the images %s: %w", quoted(names), ErrAmbiguous)
	}
	return out, nil
}

// quoted lists names for a message.
func quoted(names map[string]bool) string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(names)) {
		out = append(out, strconv.Quote(n))
	}
	return strings.Join(out, ", ")
}

func matchPlatform(want, os, arch, variant string) bool {
	f := strings.Split(want, "/")
	if len(f) < 2 || f[0] != os || f[1] != arch {
		return false
	}
	return len(f) < 3 || f[2] == variant
}

// configMatches looks for the platform where a manifest's descriptor has none.
func configMatches(l layout, m *document, want string) (bool, string) {
	var c struct{ OS, Architecture, Variant string }
	b, err := readBlob(l, m.Config)
	if err != nil || json.Unmarshal(b, &c) != nil {
		return true, ""
	}
	return matchPlatform(want, c.OS, c.Architecture, c.Variant), c.OS + "/" + c.Architecture
}

// diffIDs returns the digests of the layers as they are uncompressed: "" each
// where the configuration does not say.
func diffIDs(l layout, m *document) ([]string, error) {
	if m.Config.Digest == "" {
		return nil, badInput("the manifest has no configuration")
	}
	var c struct {
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	b, err := readBlob(l, m.Config)
	if err == nil {
		err = parseJSON("configuration", b, &c)
	}
	if err != nil {
		return nil, err
	}
	ids := c.Rootfs.DiffIDs
	if len(ids) == 0 {
		ids = make([]string, len(m.Layers))
	}
	if len(ids) != len(m.Layers) {
		return nil, badInput("the manifest has %d layers, the configuration %d", len(m.Layers), len(ids))
	}
	return ids, nil
}

// digester returns the hash that a digest is of, and what it should be.
func digester(digest string) (hash.Hash, string, error) {
	alg, hex, _ := strings.Cut(digest, ":")
	var h hash.Hash
	switch alg {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		return nil, "", badInput("digest %q: sha256 and sha512 are known", digest)
	}
	if len(hex) != 2*h.Size() || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, "", badInput("digest %q", digest)
	}
	return h, hex, nil
}

func checkDigest(h hash.Hash, want string) error {
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
		return fmt.Errorf("its digest is %s, not %s: %w", got, want, syscall.EBADMSG)
	}
	return nil
}

// openBlob finds a blob, which has the size that it should have.
func openBlob(l layout, d descriptor) (section, hash.Hash, string, error) {
	h, hex, err := digester(d.Digest)
	if err != nil {
		return section{}, nil, "", err
	}
	alg, _, _ := strings.Cut(d.Digest, ":")
	s, err := l.file("blobs/" + alg + "/" + hex)
	if err == nil && s.size != d.Size {
		err = fmt.Errorf("blob %s has %d bytes, not %d: %w", d.Digest, s.size, d.Size, syscall.EBADMSG)
	}
	return s, h, hex, err
}

// readBlob returns a small blob, verified.
func readBlob(l layout, d descriptor) ([]byte, error) {
	s, h, hex, err := openBlob(l, d)
	if err != nil {
		return nil, err
	}
	if s.size > maxJSON {
		return nil, badInput("blob %s has %d bytes; at most %d are read", d.Digest, s.size, maxJSON)
	}
	b, err := io.ReadAll(io.NewSectionReader(s.r, 0, s.size))
	if err != nil {
		return nil, err
	}
	h.Write(b)
	if err := checkDigest(h, hex); err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return b, nil
}

// loadLayer applies a layer, once it is known to be what it should be.
func (t *Tree) loadLayer(ctx context.Context, l layout, d descriptor, diff string, layer int32) error {
	if !strings.Contains(d.MediaType, ".tar") || !strings.Contains(d.MediaType, "layer") && !strings.Contains(d.MediaType, "rootfs.diff") {
		return badInput("media type %q is not that of a layer", d.MediaType)
	}
	s, h, hex, err := openBlob(l, d)
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(io.TeeReader(&ctxReader{ctx, io.NewSectionReader(s.r, 0, s.size)}, h), 256<<10)
	z, _, done, err := decompressor(in)
	if err != nil {
		return err
	}
	defer done()
	var dh hash.Hash
	var dhex string
	if diff != "" {
		if dh, dhex, err = digester(diff); err != nil {
			return err
		}
		z = io.TeeReader(z, dh)
	}
	// A copy, even if it is not compressed: the file may be another one when it is
	// read for the second time.
	sec, err := t.unpack(ctx, z)
	if err == nil {
		_, err = io.Copy(io.Discard, in) // what follows the compressed data
	}
	if err == nil {
		err = checkDigest(h, hex)
	}
	if err == nil && dh != nil {
		if err = checkDigest(dh, dhex); err != nil {
			err = fmt.Errorf("uncompressed: %w", err)
		}
	}
	if err != nil {
		return err
	}
	return t.addLayer(ctx, sec, layer)
}

// ctxReader is a reader that ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := interrupted(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
