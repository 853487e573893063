package main

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"
)

// logPlace says where logs go whose name is relative.
type logPlace struct {
	dir, fallback string
	wait          bool // they are kept until there is a place
}

// expand puts in what the percent-expressions of a log's name stand for.
func expand(name, device string, now time.Time) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' || i+1 == len(name) {
			b.WriteByte(name[i])
			continue
		}
		i++
		switch name[i] {
		case 'd':
			b.WriteString(now.Format("02"))
		case 'D':
			b.WriteString(now.Format("20060102"))
		case 'h':
			host, _ := os.Hostname()
			b.WriteString(host)
		case 'H':
			b.WriteString(now.Format("15"))
		case 'm':
			b.WriteString(now.Format("01"))
		case 'M':
			b.WriteString(now.Format("04"))
		case 'N':
			b.WriteString(filepath.Base(device))
		case 'p':
			fmt.Fprint(&b, os.Getpid())
		case 's':
			fmt.Fprint(&b, now.Unix())
		case 'S':
			b.WriteString(now.Format("05"))
		case 'T':
			b.WriteString(now.Format("150405"))
		case 'u':
			if u, err := user.Current(); err == nil {
				b.WriteString(u.Username)
			}
		case 'U':
			now = now.UTC()
		case 'y':
			b.WriteString(now.Format("06"))
		case 'Y':
			b.WriteString(now.Format("2006"))
		case '%':
			b.WriteByte('%')
		default:
			b.WriteByte(name[i])
		}
	}
	return b.String()
}

// logFile is a file that may not be there yet: what is written is kept, and the
// file tried again when it is closed.
type logFile struct {
	paths []string // to try, in order
	f     *os.File
	kept  bytes.Buffer
}

// openLog opens a log. Without a place that can be written to it fails, unless
// it may wait.
func (p logPlace) openLog(name, device string, now time.Time) (*logFile, error) {
	name = expand(name, device, now)
	l := &logFile{paths: []string{name}}
	if !filepath.IsAbs(name) && p.dir != "" {
		l.paths[0] = filepath.Join(p.dir, name)
		if p.fallback != "" {
			l.paths = append(l.paths, filepath.Join(p.fallback, name))
		}
	}
	if err := l.open(); err != nil && !p.wait {
		return nil, fmt.Errorf("log: %w", err)
	}
	return l, nil
}

func (l *logFile) open() (err error) {
	for _, path := range l.paths {
		f, e := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if e == nil {
			l.f = f
			return nil
		}
		if err == nil {
			err = e
		}
	}
	return err
}

func (l *logFile) Write(b []byte) (int, error) {
	if l.f == nil {
		return l.kept.Write(b)
	}
	return l.f.Write(b)
}

// Close ends the log. It fails if there is still no place for it.
func (l *logFile) Close() error {
	if l.f == nil {
		if err := l.open(); err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if _, err := l.f.Write(l.kept.Bytes()); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	return l.f.Close()
}
