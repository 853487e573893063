package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"github.com/e2kit/e2kit/lib/blockdev"
)

// checkTarget refuses a device that is in use, and asks before it overwrites
// what somebody may want.
func (m *maker) checkTarget() error {
	t := &m.target
	if !t.exists {
		return nil
	}
	if err := m.checkMounted(m.device, "file system"); err != nil {
		return err
	}
	if t.size > 0 && int64(m.opts.Blocks)<<m.log > t.size && m.size != "" {
		if t.block {
			return fail("%d blocks of %d bytes are more than %s has (%d bytes): give a smaller size",
				m.opts.Blocks, m.opts.BlockSize, m.device, t.size)
		}
		if m.force == 0 {
			fmt.Fprintf(m.Stdout, "%s: Filesystem larger than apparent device size.\n", m.Prog)
			if err := m.proceed(); err != nil {
				return err
			}
		}
	}
	return m.checkContent()
}

// checkMounted refuses a device that is mounted or swap.
func (m *maker) checkMounted(path, what string) error {
	where, err := mountedOn(path)
	if err != nil {
		return fail("%s: finding out whether it is mounted: %w", path, err)
	}
	if where == "" {
		return nil
	}
	if m.force > 1 {
		m.Warn(fmt.Errorf("%s is %s; a %s is made there all the same, as asked", path, where, what))
		return nil
	}
	return fail("%s is %s; will not make a %s here! (unmount it first)", path, where, what)
}

// checkContent tells what is there, and asks, if someone can answer.
func (m *maker) checkContent() error {
	if m.force > 0 || m.quiet && !m.atTerminal() || m.noAction {
		return nil
	}
	dev, err := blockdev.Open(m.device, blockdev.Options{
		ReadOnly: true, Direct: blockdev.DirectOff, Offset: m.target.offset, Length: m.target.length,
	})
	if err != nil {
		return nil // opening it for writing tells why
	}
	defer dev.Close()
	found := probe(dev)
	if len(found) == 0 {
		return nil
	}
	for _, f := range found {
		f.tell(m.Stdout, m.device)
	}
	if m.atTerminal() {
		return m.proceed()
	}
	return nil
}

func (m *maker) atTerminal() bool {
	out, ok := m.Stdout.(*os.File)
	return ok && m.prompt.Terminal() && term.IsTerminal(int(out.Fd()))
}

func glob(pattern string) []string {
	m, _ := filepath.Glob(pattern)
	return m
}
