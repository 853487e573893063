package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/e2kit/e2kit/internal/testfs"
)

// TestServiceEscapes has a server of a mount service try to escape, when those
// of TestSandboxProbe do. Unlike them it cannot be sent anything even before it
// has seen the file system.
func TestServiceEscapes(t *testing.T) {
	s := startServiceOf(t, probeServer(t))
	img := testfs.Mke2fs(t, testfs.Spec{Name: "escapes"})
	m := s.mount(img)
	var demand escapes
	ask(t, m.dir, probeXattr, &demand)
	demand.check(t, false)
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(m.dir, fmt.Sprint("file", i)), make([]byte, 100000), 0o644); err != nil {
			t.Error(err)
		}
	}
	m.unmount()
	var stages []string
	for line := range strings.Lines(s.out.String()) {
		text, ok := strings.CutPrefix(line, probeLine)
		if !ok {
			continue
		}
		var e escapes
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		if e.Stage == "confined" {
			// Once it is mounted, its further descriptors become clones.
			delete(e.Got, "ioctl FUSE clone")
		}
		e.check(t, false)
		for _, name := range []string{"recvmsg", "sendmsg"} {
			if got := e.Got[name]; got != "EPERM" {
				t.Errorf("%s: %s: %q", e.Stage, name, got)
			}
		}
		stages = append(stages, e.Stage)
	}
	if fmt.Sprint(stages) != "[confined serving]" {
		t.Errorf("attempts when %v\n%s", stages, s.out)
	}
}
