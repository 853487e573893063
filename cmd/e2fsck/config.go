package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/fsck"
	"github.com/e2kit/e2kit/lib/mkfsconf"
)

// configFile is where the configuration of the system lies.
const configFile = "/etc/e2fsck.conf"

// settings are what e2fsck.conf says that the library does not ask for.
type settings struct {
	allowCancel    bool
	reportFeatures bool
	deferOnBattery bool
	undoDir        string
	logs           logPlace
	logName        string
	problemLogName string
	maxCount       int                        // reports of a kind that are printed; 0: all
	problems       map[fsck.Code]problemWords // where they differ
}

// problemWords is how a problem is told of.
type problemWords struct {
	text                     string
	maxCount                 int
	preenSilent, silentIfNot bool
}

// configure reads e2fsck.conf, whose relations the command line overrides.
func (r *request) configure() error {
	path := os.Getenv("E2FSCK_CONFIG")
	if path == "" {
		path = configFile
	}
	c, err := mkfsconf.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c = &mkfsconf.Config{}
	case err != nil:
		return fmt.Errorf("configuration: %w", err)
	}
	k := &conf{Config: c}
	o, s := &r.opts, &r.settings
	o.AcceptTimeFudge = k.bool(k.bool(true, "options", "buggy_init_scripts"), "options", "accept_time_fudge")
	o.BrokenClock = k.bool(false, "options", "broken_system_clock")
	o.DirSlack = k.int(20, "options", "indexed_dir_slack_percentage")
	if o.DirSlack == 0 {
		o.DirSlack = -1
	}
	o.NoOptimize = k.bool(false, "options", "no_optimize_extents")
	k.bool(false, "options", "inode_count_fullmap")
	o.NoReadahead = k.int(1, "options", "readahead_kb") == 0
	k.int(0, "options", "readahead_mem_pct")
	r.timing = map[bool]int{true: 2}[k.bool(false, "options", "report_time")]
	r.verbose = k.bool(false, "options", "report_verbose")
	s.allowCancel = k.bool(false, "options", "allow_cancellation")
	s.deferOnBattery = k.bool(true, "options", "defer_check_on_battery")
	s.reportFeatures = k.bool(false, "options", "report_features")
	s.maxCount = k.int(0, "options", "max_count_problems")
	s.logs = logPlace{k.string("options", "log_dir"), k.string("options", "log_dir_fallback"), k.bool(false, "options", "log_dir_wait")}
	s.logName, s.problemLogName = k.string("options", "log_filename"), k.string("options", "problem_log_filename")
	s.undoDir = k.string("defaults", "undo_dir")
	k.scratch(o)
	k.problems(o, s)
	if !k.bool(true, "options", "clear_test_fs_flag") {
		o.Overrides[fsck.P0ClearTestFS] = fsck.Override{Ignore: true}
	}
	return k.err
}

// conf gives values as what they should be, and keeps the first error.
type conf struct {
	*mkfsconf.Config
	err error
}

func (k *conf) bad(path []string, v, want string) {
	if k.err == nil {
		k.err = fmt.Errorf("configuration: %s: %q is not %s", strings.Join(path, "/"), v, want)
	}
}

func (k *conf) string(path ...string) string {
	v, _ := k.Get(path...)
	return v
}

func (k *conf) bool(def bool, path ...string) bool {
	v, has := k.Get(path...)
	if !has {
		return def
	}
	b, ok := mkfsconf.ParseBool(v)
	if !ok {
		k.bad(path, v, "yes or no")
	}
	return b
}

func (k *conf) int(def int, path ...string) int {
	v, has := k.Get(path...)
	if !has {
		return def
	}
	n, err := strconv.ParseInt(v, 0, 32)
	if err != nil || n < 0 {
		k.bad(path, v, "a number")
	}
	return int(n)
}

// scratch reads whether what is known of directories lies in a file.
func (k *conf) scratch(o *fsck.Options) {
	o.Scratch = k.string("scratch_files", "directory")
	from := k.int(0, "scratch_files", "numdirs_threshold")
	k.bool(true, "scratch_files", "icount")
	if st, err := os.Stat(o.Scratch); k.bool(true, "scratch_files", "dirinfo") && o.Scratch != "" && err == nil && st.IsDir() {
		o.Memory, o.ScratchFrom = -1, uint64(from)
	}
}

// problems reads what is different about single problems.
func (k *conf) problems(o *fsck.Options, s *settings) {
	o.Overrides, s.problems = map[fsck.Code]fsck.Override{}, map[fsck.Code]problemWords{}
	for _, code := range fsck.Codes() {
		sec := fmt.Sprintf("0x%06x", uint32(code))
		if !k.HasSection("problems", sec) {
			continue
		}
		opt := func(name string) *bool {
			if _, has := k.Get("problems", sec, name); !has {
				return nil
			}
			v := k.bool(false, "problems", sec, name)
			return &v
		}
		is := func(name string) bool { return k.bool(false, "problems", sec, name) }
		o.Overrides[code] = fsck.Override{PreenOK: opt("preen_ok"), NoOK: opt("no_ok"), NoDefault: opt("no_default"),
			NotAFix: opt("not_a_fix"), ForceNo: is("force_no")}
		s.problems[code] = problemWords{text: k.string("problems", sec, "description"), maxCount: k.int(0, "problems", sec, "max_count"),
			preenSilent: is("preen_nomessage"), silentIfNot: is("no_nomsg")}
	}
}

// onBattery tells whether the machine has a supply of power, and all are off.
func onBattery() bool {
	list, _ := filepath.Glob("/sys/class/power_supply/*/online")
	off := 0
	for _, f := range list {
		b, err := os.ReadFile(f)
		kind, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "type"))
		if err != nil || strings.TrimSpace(string(kind)) == "Battery" {
			continue
		}
		if strings.TrimSpace(string(b)) != "0" {
			return false
		}
		off++
	}
	return off > 0
}
