package main

import (
	"fmt"
	"os"

	"github.com/e2kit/e2kit/internal/cli"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupFS,
		request{names: []string{"show_debugfs_params", "params"}, help: "show what is open, and how", run: params},
		request{names: []string{"open_filesys", "open"}, args: "[-w] [-e] [-f] [-i] [-c] [-D] [-n] [-b blocksize] [-d data] [-s superblock] [-z undo] device",
			help: "open a file system", needs: noFS, min: 1, max: 1, opts: options("iwfecDnb:s:d:z:"), run: openCmd},
		request{names: []string{"close_filesys", "close"}, args: "[-a]", help: "close it; -a brings all backups of the superblock up to date",
			opts: options("a"), run: closeCmd},
	)
	register(groupMove,
		request{names: []string{"change_working_directory", "cd"}, args: "directory", help: "change the working directory",
			needs: needFS, min: 1, max: 1, run: cd},
		request{names: []string{"change_root_directory", "chroot"}, args: "directory", help: "change the root directory",
			needs: needFS, min: 1, max: 1, run: chroot},
		request{names: []string{"print_working_directory", "pwd"}, help: "show the working and the root directory", needs: needFS, run: pwd},
		request{names: []string{"lcd"}, args: "directory", help: "change the working directory of this program", min: 1, max: 1, run: lcd},
	)
	register(groupProgram,
		request{names: []string{"help", "list_requests", "lr", "?"}, args: "[command]", help: "list the commands, or tell about one", max: 1,
			run: func(s *session, a *args) error {
				text, err := helpText(a.word(0))
				s.out.WriteString(text)
				return err
			}},
		request{names: []string{"quit", "q", "exit"}, help: "leave", run: func(s *session, _ *args) error { s.quit = true; return nil }},
	)
}

func params(s *session, _ *args) error {
	if s.json {
		return s.emit(map[string]any{"device": s.name, "writable": s.opts.write, "catastrophic": s.opts.catastrophic})
	}
	if s.name != "" {
		mode := map[bool]string{false: "read-only", true: "read-write"}[s.opts.write]
		if s.opts.catastrophic {
			mode = "read-only, catastrophic mode"
		}
		fmt.Fprintf(s.out, "Open mode: %s\n", mode)
		fmt.Fprintf(s.out, "Filesystem in use: %s\n", cli.Clean(s.name))
	} else {
		fmt.Fprintf(s.out, "Filesystem in use: --none--\n")
	}
	return nil
}

func openCmd(s *session, a *args) error {
	o := openOpts{
		write: a.has("w"), force: a.has("f"), exclusive: a.has("e"), image: a.has("i"), catastrophic: a.has("c"),
		direct: a.has("D"), noCsum: a.has("n"),
	}
	o.data, _ = a.value("d")
	o.undo, _ = a.value("z")
	if s.readOnly && o.write {
		return fmt.Errorf("%s does not write", s.prog)
	}
	size, _ := a.value("b")
	super, _ := a.value("s")
	if err := firstError(o.numbers(size, super), o.check()); err != nil {
		return usagef("%v", err)
	}
	return s.open(a.word(0), o)
}

func closeCmd(s *session, a *args) error {
	if s.name == "" {
		return fmt.Errorf("no file system is open")
	}
	if a.has("a") && !s.opts.write {
		return firstError(s.close(false), fmt.Errorf("backups are written only if it is open for writing"))
	}
	return s.close(a.has("a"))
}

// directory returns the inode of a directory.
func (s *session) directory(w string) (ondisk.Ino, error) {
	ino, err := s.inode(w)
	if err != nil {
		return 0, err
	}
	mode, err := s.names().Mode(ino)
	if err == nil && mode&ondisk.ModeFmt == ondisk.ModeLnk {
		if ino, err = s.lookup(w, true); err == nil {
			mode, err = s.names().Mode(ino)
		}
	}
	if err == nil && mode&ondisk.ModeFmt != ondisk.ModeDir {
		err = fmt.Errorf("%s: not a directory", w)
	}
	return ino, err
}

func cd(s *session, a *args) error {
	ino, err := s.directory(a.word(0))
	if err == nil {
		s.cwd = ino
	}
	return err
}

func chroot(s *session, a *args) error {
	ino, err := s.directory(a.word(0))
	if err == nil {
		s.root = ino
	}
	return err
}

func lcd(_ *session, a *args) error { return os.Chdir(a.word(0)) }

func pwd(s *session, _ *args) error {
	raw, err := s.useRaw()
	if err != nil {
		return err
	}
	cwd := pathOf(raw, s.root, s.cwd)
	root := "/"
	if s.root != ondisk.RootIno {
		root = pathOf(raw, ondisk.RootIno, s.root)
	}
	if s.json {
		return s.emit(map[string]any{"cwd": map[string]any{"ino": s.cwd, "path": cwd}, "root": map[string]any{"ino": s.root, "path": root}})
	}
	fmt.Fprintf(s.out, "[pwd]   INODE: %6d  PATH: %s\n", s.cwd, cli.Clean(cwd))
	fmt.Fprintf(s.out, "[root]  INODE: %6d  PATH: %s\n", s.root, cli.Clean(root))
	return nil
}
