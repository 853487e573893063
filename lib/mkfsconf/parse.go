package mkfsconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Config is a parsed configuration.
type Config struct{ root node }

// node is a relation, which has a value, or a section, which has children.
type node struct {
	name     string
	value    string
	section  bool
	final    bool // what comes later does not add to it
	children []*node
}

// A SyntaxError is a line that is not understood.
type SyntaxError struct {
	File string // may be empty
	Line int    // from 1
	Why  string
}

func (e *SyntaxError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Why)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Why)
}

// DefaultFile is where the configuration of the system lies.
const DefaultFile = "/etc/mke2fs.conf"

// maxDepth is how deep sections may lie within each other.
const maxDepth = 32

// Load reads the file that MKE2FS_CONFIG names, else DefaultFile; where that
// does not exist it returns Default. A directory stands for the files in it
// that end in .conf, in the order of their names.
func Load() (*Config, error) {
	path := os.Getenv("MKE2FS_CONFIG")
	if path == "" {
		path = DefaultFile
	}
	c, err := ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	return c, err
}

// ReadFile reads the file or directory at path.
func ReadFile(path string) (*Config, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	files := []string{path}
	if st.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.conf")); err != nil {
			return nil, err
		}
		slices.Sort(files)
	}
	c := &Config{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if err := c.parse(f, string(b)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Parse reads a configuration. Its error is a *SyntaxError.
func Parse(text string) (*Config, error) {
	c := &Config{}
	if err := c.parse("", text); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) parse(file, text string) error {
	stack := []*node{} // the section of the line and what it lies in
	open := false      // a section's brace is still to come
	line := 0
	fail := func(format string, args ...any) error {
		return &SyntaxError{file, line, fmt.Sprintf(format, args...)}
	}
	for s := range strings.Lines(text) {
		line++
		s = strings.TrimSpace(s)
		if s == "" || s[0] == ';' || s[0] == '#' {
			continue
		}
		switch {
		case open:
			if s != "{" {
				return fail("a value, or { on a line of its own, is missing after %q", stack[len(stack)-1].name)
			}
			open = false
		case s[0] == '[':
			if len(stack) > 1 {
				return fail("%s within the braces of %q", s, stack[len(stack)-1].name)
			}
			name, rest, ok := strings.Cut(s[1:], "]")
			rest = strings.TrimSpace(rest)
			if !ok || rest != "" && rest != "*" && rest[0] != '#' && rest[0] != ';' {
				return fail("%q is not a section: [name]", s)
			}
			stack = []*node{c.root.subsection(strings.TrimSpace(name))}
			stack[0].final = stack[0].final || rest == "*"
		case s[0] == '}':
			if len(stack) < 2 {
				return fail("} without {")
			}
			// Users put words behind it; only the mark of a final section counts.
			if strings.HasPrefix(s, "}*") {
				stack[len(stack)-1].final = true
			}
			stack = stack[:len(stack)-1]
		default:
			if len(stack) == 0 {
				return fail("a relation outside of any [section]")
			}
			name, value, err := cutRelation(s)
			if err != nil {
				return fail("%v", err)
			}
			in := stack[len(stack)-1]
			if value != "" && value != "{" {
				if value, err = unquote(value); err != nil {
					return fail("%v", err)
				}
				in.children = append(in.children, &node{name: name, value: value})
				continue
			}
			if len(stack) > maxDepth {
				return fail("braces within braces, %d deep", maxDepth)
			}
			stack = append(stack, in.subsection(name))
			open = value == ""
		}
	}
	if open || len(stack) > 1 {
		line++
		return fail("the braces of %q are not closed", stack[len(stack)-1].name)
	}
	return nil
}

// subsection returns the section of that name, made if there is none.
func (n *node) subsection(name string) *node {
	for _, c := range n.children {
		if c.section && c.name == name && !c.final {
			return c
		}
	}
	c := &node{name: name, section: true}
	n.children = append(n.children, c)
	return c
}

// cutRelation splits "name = value". The name may be quoted.
func cutRelation(s string) (name, value string, err error) {
	if s[0] == '"' {
		end := closing(s)
		if end < 0 {
			return "", "", fmt.Errorf("a quote is not closed")
		}
		if name, err = unquote(s[:end+1]); err != nil {
			return "", "", err
		}
		s = strings.TrimSpace(s[end+1:])
		if !strings.HasPrefix(s, "=") {
			return "", "", fmt.Errorf("= is missing after %q", name)
		}
		return name, strings.TrimSpace(s[1:]), nil
	}
	name, value, ok := strings.Cut(s, "=")
	name = strings.TrimRight(strings.TrimSpace(name), "*")
	switch {
	case !ok:
		return "", "", fmt.Errorf("%q is neither a relation (name = value) nor a [section]", s)
	case name == "" || strings.ContainsAny(name, " \t"):
		return "", "", fmt.Errorf("%q is not the name of a relation", strings.TrimSpace(name))
	}
	return name, strings.TrimSpace(value), nil
}

// closing returns the index of the quote that ends the one at the start of s.
func closing(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// unquote returns what a value stands for.
func unquote(s string) (string, error) {
	if s[0] != '"' {
		return s, nil
	}
	end := closing(s)
	if end < 0 {
		return "", fmt.Errorf("a quote is not closed")
	}
	var b strings.Builder
	for i := 1; i < end; i++ {
		c := s[i]
		if c == '\\' {
			i++
			switch c = s[i]; c {
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case 'b':
				c = '\b'
			}
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// Get returns the first value of the relation at path, the names of the sections
// around it first.
func (c *Config) Get(path ...string) (value string, ok bool) {
	if len(path) == 0 {
		return "", false
	}
	return c.root.get(path)
}

func (n *node) get(path []string) (string, bool) {
	for _, c := range n.children {
		switch {
		case c.name != path[0]:
		case len(path) == 1 && !c.section:
			return c.value, true
		case len(path) > 1 && c.section:
			if v, ok := c.get(path[1:]); ok {
				return v, true
			}
		}
	}
	return "", false
}

// HasSection says whether there is a section at path.
func (c *Config) HasSection(path ...string) bool { return c.root.has(path) }

func (n *node) has(path []string) bool {
	if len(path) == 0 {
		return true
	}
	for _, c := range n.children {
		if c.section && c.name == path[0] && c.has(path[1:]) {
			return true
		}
	}
	return false
}

// ParseBool reads a value that is on or off, as e2fsprogs does: by words in any
// case, or a number.
func ParseBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "y", "yes", "true", "t", "1", "on":
		return true, true
	case "n", "no", "false", "nil", "0", "off":
		return false, true
	}
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		return n != 0, true
	}
	return false, false
}
