package populate

import (
	"path"
	"strings"
)

// excludes is patterns of what is left out. A pattern with a slash in it, other
// than at its end, is matched against the path from the root, "**" standing for
// any directories; one without is matched against each name. A slash at the end
// asks for a directory. What is below an excluded directory is excluded.
type excludes []exclude

type exclude struct {
	parts   []string
	anyName bool // of one name, anywhere
	dirOnly bool
}

// CheckExclude fails if p is no pattern for Options.Exclude.
func CheckExclude(p string) error {
	_, err := compileExcludes([]string{p})
	return err
}

func compileExcludes(patterns []string) (excludes, error) {
	var out excludes
	for _, p := range patterns {
		e := exclude{dirOnly: strings.HasSuffix(p, "/")}
		body := strings.TrimSuffix(p, "/")
		e.anyName = !strings.Contains(body, "/")
		for c := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(body, "./"), "/"), "/") {
			if _, err := path.Match(c, ""); err != nil {
				return nil, badInput("exclude pattern %q", p)
			}
			e.parts = append(e.parts, c)
		}
		if e.anyName {
			e.parts = []string{body}
		}
		out = append(out, e)
	}
	return out, nil
}

// match says whether the path, without a leading slash, is left out.
func (x excludes) match(p string, dir bool) bool {
	if len(x) == 0 {
		return false
	}
	base := path.Base(p)
	parts := strings.Split(p, "/")
	for _, e := range x {
		if e.dirOnly && !dir {
			continue
		}
		if e.anyName {
			if ok, _ := path.Match(e.parts[0], base); ok {
				return true
			}
		} else if matchParts(e.parts, parts) {
			return true
		}
	}
	return false
}

// matchParts matches path components; each "**" costs a loop over the rest, and
// the table of what was seen not to match keeps that from multiplying.
func matchParts(pat, p []string) bool {
	// row[j]: pat[i:] matches p[j:]
	row := make([]bool, len(p)+1)
	row[len(p)] = true
	for i := len(pat) - 1; i >= 0; i-- {
		next := row
		row = make([]bool, len(p)+1)
		for j := len(p); j >= 0; j-- {
			switch {
			case pat[i] == "**":
				row[j] = next[j] || j < len(p) && row[j+1]
			case j < len(p):
				ok, _ := path.Match(pat[i], p[j])
				row[j] = ok && next[j+1]
			}
		}
	}
	return row[0]
}

// exclude takes what the patterns name out of the tree.
func (t *Tree) exclude() error {
	x, err := compileExcludes(t.opt.Exclude)
	if err != nil || len(x) == 0 {
		return err
	}
	return t.excludeDir(x, rootID, nil)
}

func (t *Tree) excludeDir(x excludes, dir nodeID, at trail) error {
	return t.each(dir, func(name string, d dirent) error {
		p := at.down(name)
		switch {
		case x.match(p.String(), d.dir):
			return t.remove(dir, name, d)
		case d.dir:
			return t.excludeDir(x, d.id, p)
		}
		return nil
	})
}
