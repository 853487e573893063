package populate

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// FileContexts is what a file_contexts file of SELinux says: which label a path
// has. As libselinux has it, entries without a special character come before
// those with one, and of these the last that matches counts.
type FileContexts struct {
	exact map[string][]fileContext // by the path
	specs []fileContext            // last first
}

type fileContext struct {
	typ    uint16 // 0: any
	label  string // "": none
	prefix string // that a path must have
	re     *regexp.Regexp
}

const maxContextLine = 64 << 10

var contextTypes = map[string]uint16{
	"--": ondisk.ModeReg, "-d": ondisk.ModeDir, "-c": ondisk.ModeChr, "-b": ondisk.ModeBlk,
	"-l": ondisk.ModeLnk, "-p": ondisk.ModeFIFO, "-s": ondisk.ModeSock,
}

// ParseFileContexts reads a file_contexts file: lines of a regular expression
// for whole paths, perhaps a type (--, -d, -c, -b, -l, -p, -s), and a label or
// <<none>>. It fails for expressions that this program's matcher does not have
// (backward references and the like), naming the line.
func ParseFileContexts(r io.Reader) (*FileContexts, error) {
	c := &FileContexts{exact: map[string][]fileContext{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 4096), maxContextLine)
	for no := 1; sc.Scan(); no++ {
		f := strings.Fields(sc.Text())
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		var e fileContext
		switch {
		case len(f) == 3:
			typ, ok := contextTypes[f[1]]
			if !ok {
				return nil, fmt.Errorf("file contexts, line %d: %w", no, badInput("type %q", f[1]))
			}
			e.typ = typ
		case len(f) != 2:
			return nil, fmt.Errorf("file contexts, line %d: %w", no, badInput("%d fields; a path, perhaps a type, and a label are wanted", len(f)))
		}
		if e.label = f[len(f)-1]; e.label == "<<none>>" {
			e.label = ""
		}
		prefix, plain, ok := literal(f[0])
		if ok {
			c.exact[plain] = append(c.exact[plain], e)
			continue
		}
		e.prefix = prefix
		_, err := regexp.Compile(f[0]) // by itself: it must not close the group around it
		if err == nil {
			e.re, err = regexp.Compile("^(?s:" + f[0] + ")$")
		}
		if err != nil {
			return nil, fmt.Errorf("file contexts, line %d: %w", no, badInput("%v", err))
		}
		c.specs = append(c.specs, e)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("file contexts: %w", err)
	}
	slices.Reverse(c.specs)
	return c, nil
}

// literal returns what every match of the expression begins with, and, if it
// has no special character, the one path that it matches.
func literal(s string) (prefix, plain string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && !isAlnum(s[i+1]):
			i++
			b.WriteByte(s[i])
		case c == '|': // what is before it is one of several
			return "", "", false
		case strings.IndexByte(`.^$?*+[({\`, c) >= 0:
			p := b.String()
			if p != "" && (c == '?' || c == '*' || c == '{') {
				p = p[:len(p)-1] // the character before may be missing
			}
			return topLevel(s, p), "", false
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), b.String(), true
}

// topLevel returns prefix, or "" where the expression has alternatives outside
// of any group, which need not begin with it.
func topLevel(s, prefix string) string {
	depth, class := 0, false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '[':
			class = true
		case ']':
			class = false
		case '(':
			if !class {
				depth++
			}
		case ')':
			if !class {
				depth--
			}
		case '|':
			if !class && depth <= 0 {
				return ""
			}
		}
	}
	return prefix
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// Lookup returns the label of a path, which begins with a slash, of the type
// that mode has. ok is false if it has none.
func (c *FileContexts) Lookup(path string, mode uint16) (label string, ok bool) {
	typ := mode & ondisk.ModeFmt
	e := c.exact[path]
	for i := len(e) - 1; i >= 0; i-- {
		if e[i].typ == 0 || e[i].typ == typ {
			return e[i].label, e[i].label != ""
		}
	}
	for i := range c.specs {
		s := &c.specs[i]
		if (s.typ == 0 || s.typ == typ) && strings.HasPrefix(path, s.prefix) && s.re.MatchString(path) {
			return s.label, s.label != ""
		}
	}
	return "", false
}
