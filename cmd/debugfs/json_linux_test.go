package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// jsonRequests are further requests that show something.
var jsonRequests = []string{
	"stats", "stats -h", "logdump", "logdump -a", "logdump -c", "logdump -S", "logdump -O", "logdump -aO -n 3", "logdump -b 100 -O", "logdump -i a/x -O -c",
	"ssv -l", "sif -l", "set_bg -l", "smmp -l", "orphan", "orphan_inodes", "bd -x 100", "idump -x a/z", "du", "find", "grep 5 /big", "grep -l 1 big", "recover", "freefrag -c 64", "filefrag -r /a",
}

// TestJSON has every command that shows something print one JSON value.
func TestJSON(t *testing.T) {
	testfs.NeedRoot(t)
	img := sample(t, testfs.Spec{Name: "ext4-1k", BlockSize: 1024, Features: "ea_inode,orphan_file"})
	for _, req := range append(append([]string{"diff " + img.Path}, readRequests...), jsonRequests...) {
		if strings.HasPrefix(req, "cat ") {
			continue // what it prints is the file
		}
		status, out, errs := debugfs("--json", "-R", req, img.Path)
		if status != 0 && out == "" && errs != "" {
			continue
		}
		if !json.Valid([]byte(out)) {
			t.Errorf("%s: status %d: %s%s", req, status, short(out), errs)
		}
	}
	// The listing says the same in either form.
	for req, want := range map[string]string{"logdump -a -O": `"event":"logged"`, "htree /big": `"leaf":`, "bd 1": `"bytes": "`, "orphan": "[]"} {
		if _, out, _ := debugfs("--json", "-R", req, img.Path); !strings.Contains(out, want) {
			t.Errorf("%s: no %s in %s", req, want, short(out))
		}
	}
	_, text, _ := debugfs("-R", "logdump -a -O", img.Path)
	_, out, _ := debugfs("--json", "-R", "logdump -a -O", img.Path)
	for line, event := range map[string]string{"  FS block": "logged", "Found expected sequence": "block"} {
		if n, m := strings.Count(text, line), strings.Count(out, `"event":"`+event+`"`); n != m || n == 0 {
			t.Errorf("%q: %d lines, %d events", line, n, m)
		}
	}
}
