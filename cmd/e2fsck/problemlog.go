package main

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"

	"github.com/e2kit/e2kit/lib/fsck"
)

// problemLog is the file of -E problem_log: the codes that were found, as XML.
type problemLog struct {
	f *logFile
	w *bufio.Writer
}

func newProblemLog(f *logFile, device string) *problemLog {
	l := &problemLog{f, bufio.NewWriter(f)}
	fmt.Fprintf(l.w, "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<problem_log>\n<filesystem dev=\"%s\"/>\n", quote(device))
	return l
}

func quote(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

func (l *problemLog) header(c fsck.Code) {
	fmt.Fprintf(l.w, "<header code=\"%#06x\"/>\n", uint32(c))
}

func (l *problemLog) problem(p *fsck.Problem) {
	fmt.Fprintf(l.w, "<problem code=\"0x%06x\"", uint32(p.Code))
	if p.Asked {
		fmt.Fprintf(l.w, " answer=\"%d\"", map[bool]int{true: 1}[p.Answer])
	}
	num := func(name string, v uint64) {
		if v != 0 {
			fmt.Fprintf(l.w, " %s=\"%d\"", name, v)
		}
	}
	num("ino", uint64(p.Ino))
	num("dir", uint64(p.Dir))
	num("blk", uint64(p.Blk))
	num("num", p.Num)
	if p.Group >= 0 {
		fmt.Fprintf(l.w, " group=\"%d\"", p.Group)
	}
	if p.Lblk >= 0 {
		fmt.Fprintf(l.w, " blkcount=\"%d\"", p.Lblk)
	}
	if p.Name != "" {
		fmt.Fprintf(l.w, " name=\"%s\"", quote(p.Name))
	}
	fmt.Fprint(l.w, "/>\n")
}

func (l *problemLog) close() error {
	fmt.Fprint(l.w, "</problem_log>\n")
	return errors.Join(l.w.Flush(), l.f.Close())
}
