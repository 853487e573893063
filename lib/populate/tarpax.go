package populate

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// applyPax sets what the records say.
func (h *tarHeader) applyPax(p pax) error {
	keys := make([]string, 0, len(p))
	for k := range p {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	attrs := map[string]string{}
	for _, k := range keys {
		v := p[k]
		if v == "" {
			if _, ok := strings.CutPrefix(k, "SCHILY.xattr."); !ok {
				continue
			}
		}
		if err := h.record(k, v, attrs); err != nil {
			return fmt.Errorf("entry %q: record %s: %w", h.name, k, err)
		}
	}
	for k, v := range attrs {
		h.attrs = append(h.attrs, xattr{k, v})
	}
	return nil
}

func (h *tarHeader) record(k, v string, attrs map[string]string) (err error) {
	var n int64
	switch k {
	case "path":
		h.name = v
	case "linkpath":
		h.link = v
	case "size":
		n, err = strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return badInput("%q", v)
		}
		h.size, h.stored = n, n
	case "uid", "gid":
		if n, err = strconv.ParseInt(v, 10, 64); err != nil {
			return badInput("%q", v)
		}
		id, err := idOf(n)
		if err != nil {
			return err
		}
		if k == "uid" {
			h.uid = id
		} else {
			h.gid = id
		}
	case "mtime":
		h.mtime, err = paxTime(v)
	case "atime":
		h.atime, err = paxTime(v)
		h.hasAtime = true
	case "SCHILY.devmajor", "SCHILY.devminor":
		u, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return badInput("%q", v)
		}
		if k == "SCHILY.devmajor" {
			h.major = uint32(u)
		} else {
			h.minor = uint32(u)
		}
	case "SCHILY.acl.access", "SCHILY.acl.default":
		acl, err := parseACL(v)
		if err != nil {
			return err
		}
		if acl == nil {
			return nil
		}
		name := xattrAccess
		if k == "SCHILY.acl.default" {
			name = xattrDefault
		}
		attrs[name] = string(acl.AppendXattr(nil))
	case "RHT.security.selinux":
		attrs[xattrSELinux] = strings.TrimSuffix(v, "\x00") + "\x00"
	default:
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && name != "" {
			name = gnuKeyword.Replace(name)
			if _, done := attrs[name]; !done || !strings.HasPrefix(name, "system.posix_acl") {
				attrs[name] = v
			}
		} else if name, ok := strings.CutPrefix(k, "LIBARCHIVE.xattr."); ok && name != "" {
			return libarchiveXattr(name, v, attrs)
		}
	}
	return err
}

// gnuKeyword undoes what GNU tar does to characters that a keyword cannot have.
var gnuKeyword = strings.NewReplacer("%3D", "=", "%25", "%")

// libarchiveXattr takes an attribute as libarchive writes it; it writes the
// same in star's form mostly, which counts.
func libarchiveXattr(name, v string, attrs map[string]string) error {
	name, err := url.PathUnescape(name)
	if err != nil {
		return badInput("%v", err)
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "="))
	if err != nil {
		return badInput("%v", err)
	}
	attrs[name] = string(b)
	return nil
}

// paxTime reads seconds with a fraction, perhaps negative.
func paxTime(s string) (t ondisk.Time, err error) {
	whole, frac, _ := strings.Cut(s, ".")
	neg := strings.HasPrefix(whole, "-")
	if whole == "" || whole == "-" {
		whole += "0"
	}
	if t.Sec, err = strconv.ParseInt(whole, 10, 64); err != nil || t.Sec > 1<<40 || t.Sec < -1<<40 {
		return t, badInput("time %q", s)
	}
	if frac == "" {
		return t, nil
	}
	if strings.Trim(frac, "0123456789") != "" {
		return t, badInput("time %q", s)
	}
	n, _ := strconv.ParseUint((frac + "000000000")[:9], 10, 32)
	t.Nsec = uint32(n)
	if neg && n > 0 {
		t.Sec--
		t.Nsec = 1e9 - t.Nsec
	}
	return t, nil
}
