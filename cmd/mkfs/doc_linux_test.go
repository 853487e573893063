package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// Every option is in the manual page, the completion and the help; but for old
// names of others, of which there is none in the latter two.
func TestOptionsAreDocumented(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	page := strings.ReplaceAll(read("../../man/mke2fs.8"), `\-`, "-")
	completion := read("../../packaging/completion/mke2fs.bash")
	help := ""
	for _, s := range topics {
		help += s
	}
	old := map[string]bool{"K": true, "R": true, "s": true}
	for _, f := range command(t.Context(), "mke2fs").Flags {
		name := f.Names()[0]
		opt := "-" + name
		if len(name) > 1 {
			opt = "--" + name
		}
		for what, text := range map[string]string{"manual page": page, "completion": completion, "help": help} {
			if old[name] && what != "manual page" || name == "help" && what == "help" {
				continue
			}
			found := false
			for w := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" \t\n\",;|()[]:=\\", r) }) {
				found = found || w == opt
			}
			if !found {
				t.Errorf("%s is not in the %s", opt, what)
			}
		}
	}
}

// What bash offers for a word that was begun.
func TestCompletion(t *testing.T) {
	bash := testfs.Tool(t, "bash")
	for _, c := range []struct{ words, want string }{
		{"mke2fs --map", "--map-uid --map-gid"},
		{"mke2fs --size a", "auto"},
		{"mke2fs --size = a", "auto"},
		{"mke2fs --help = f", "features fill"},
		{"mke2fs --platform linux/arm6", "linux/arm64"},
		{"mke2fs -t ext", "ext2 ext3 ext4"},
		{"mke2fs -O ^casefold,^ver", "^casefold,^verity"},
		{"mke2fs --file-contexts main.", "main.go"},
		{"mke2fs --owner 0", ""},
	} {
		script := `. ../../packaging/completion/mke2fs.bash; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mke2fs; echo "${COMPREPLY[*]}"`
		out, err := exec.Command(bash, append([]string{"-c", script, "-"}, strings.Fields(c.words)...)...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.words, got, err, c.want)
		}
	}
}
