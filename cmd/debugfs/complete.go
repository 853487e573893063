package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/e2kit/e2kit/lib/e2p"
	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// complete is called for every key; a tab completes the word before it.
func (t *terminal) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	head, tail := line[:pos], line[pos:]
	words, err := splitLine(head)
	if err != nil {
		if words, err = splitLine(head + `"`); err != nil { // within quotes
			return line, pos, true
		}
	}
	if n := len(head); n == 0 || head[n-1] == ' ' && !strings.HasSuffix(head, `\ `) && (len(words) == 0 || strings.Count(head, `"`)%2 == 0) {
		words = append(words, "")
	}
	word := words[len(words)-1]
	list := t.s.candidates(words)
	if len(list) == 0 {
		return line, pos, true
	}
	common := list[0]
	for _, c := range list[1:] {
		for !strings.HasPrefix(c, common) {
			common = common[:len(common)-1]
		}
	}
	if common == word && len(list) > 1 {
		t.list(list)
		return line, pos, true
	}
	start := wordStart(head)
	text := common
	if len(list) == 1 {
		text = quoteWord(common)
		if !strings.HasSuffix(common, "/") {
			text += " "
		}
	} else if quoteWord(common) != common {
		text = strings.TrimSuffix(quoteWord(common), `"`)
	}
	return head[:start] + text + tail, start + len(text), true
}

// wordStart returns where the last word of a line begins.
func wordStart(line string) int {
	start, quoted := 0, false
	for i := range len(line) {
		switch c := line[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t'):
			start = i + 1
		}
	}
	return start
}

// list shows what is possible, above the line.
func (t *terminal) list(list []string) {
	const most = 100
	more := ""
	if n := len(list); n > most {
		list, more = list[:most], fmt.Sprintf(" … and %d more", n-most)
	}
	for i, c := range list {
		list[i] = path.Base(c)
		if strings.HasSuffix(c, "/") {
			list[i] += "/"
		}
	}
	fmt.Fprintf(t.t, "%s%s\n", escape([]byte(strings.Join(list, "  "))), more)
}

// candidates returns what the last of the words can be, in order.
func (s *session) candidates(words []string) []string {
	word := words[len(words)-1]
	var list []string
	switch {
	case len(words) == 1:
		for _, g := range groups {
			for _, r := range g.requests {
				list = append(list, r.names...)
			}
		}
	default:
		if list = s.fieldNames(words); list == nil {
			return s.pathsLike(word)
		}
	}
	slices.Sort(list)
	return slices.DeleteFunc(list, func(c string) bool { return !strings.HasPrefix(c, word) })
}

// fieldNames returns the fields that a command that sets one can be given at
// the last of its words; nil if none is wanted there.
func (s *session) fieldNames(words []string) []string {
	var fields []e2p.Field
	switch words[0] + fmt.Sprint(len(words)) {
	case "ssv2", "set_super_value2":
		fields = e2p.Fields("s_", &ondisk.Super{})
	case "sif3", "set_inode_field3":
		fields = inodeFields(make(ondisk.RawInode, 256))
	case "set_bg3", "set_block_group3":
		fields = descFields(make(ondisk.Desc, ondisk.GroupDescMin64))
	case "smmp2", "set_mmp_value2":
		fields = e2p.Fields("mmp_", &ondisk.MMP{})
	}
	var list []string
	for i := range fields {
		name := fields[i].Name
		if fields[i].Len() > 0 {
			name += "["
		}
		list = append(list, name)
	}
	return list
}

// pathsLike returns the paths in the image that begin with word.
func (s *session) pathsLike(word string) (list []string) {
	if s.name == "" {
		return nil
	}
	r, err := s.useRaw()
	if err != nil {
		return nil
	}
	dir, prefix := path.Split(word)
	ino := s.cwd
	if dir != "" {
		if ino, err = s.lookup(dir, true); err != nil {
			return nil
		}
	}
	_ = r.Dirents(ino, 0, func(e *ext2fs.RawDirent) bool { // what is damaged is not offered
		name := string(e.Name)
		if !strings.HasPrefix(name, prefix) || isDots(e.Name) && !strings.HasPrefix(prefix, ".") {
			return true
		}
		if mode, err := r.Mode(e.Ino); err == nil && mode&ondisk.ModeFmt == ondisk.ModeDir {
			name += "/"
		}
		list = append(list, dir+name)
		return len(list) < 10000
	})
	slices.Sort(list)
	return list
}
