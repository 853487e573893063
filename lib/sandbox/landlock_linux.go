package sandbox

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	llCreateVersion = 1 << 0 // LANDLOCK_CREATE_RULESET_VERSION
	llCreateErrata  = 1 << 1 // LANDLOCK_CREATE_RULESET_ERRATA

	llScopeSignal = 1 << 1 // LANDLOCK_SCOPE_SIGNAL

	// llErratumSignal is fixed where threads may signal each other though
	// each has its own domain. Go needs that.
	llErratumSignal = 1 << 1
)

// llRulesetAttr is struct landlock_ruleset_attr.
type llRulesetAttr struct {
	fs, net, scoped uint64
}

// llRights are Landlock's rights and scopes by the version of its ABI that
// brought them. The last ones are about sockets, which a process without any
// cannot have: to lack them is not worth a warning.
var llRights = []struct {
	abi  int
	what string // "" for what the version before has in another form
	add  llRulesetAttr
	warn bool
}{
	{1, "files", llRulesetAttr{fs: 1<<13 - 1}, true}, // execute ... make_sym
	{2, "", llRulesetAttr{fs: 1 << 13}, false},       // refer: denied without
	{3, "truncation", llRulesetAttr{fs: 1 << 14}, true},
	{4, "TCP", llRulesetAttr{net: 1<<0 | 1<<1}, true},
	{5, "device ioctls", llRulesetAttr{fs: 1 << 15}, true}, // of devices opened from then on
	{6, "abstract sockets and signals", llRulesetAttr{scoped: 1<<0 | llScopeSignal}, true},
	{9, "named sockets", llRulesetAttr{fs: 1 << 16}, false},
	{10, "UDP", llRulesetAttr{net: 1<<2 | 1<<3}, false},
}

// llAttr returns the ruleset for a version of the ABI, and how much of it such
// a kernel knows.
func llAttr(abi int) (attr llRulesetAttr, size uintptr) {
	for _, r := range llRights {
		if r.abi <= abi {
			attr.fs |= r.add.fs
			attr.net |= r.add.net
			attr.scoped |= r.add.scoped
		}
	}
	switch {
	case attr.scoped != 0:
		size = unsafe.Sizeof(attr)
	case attr.net != 0:
		size = unsafe.Offsetof(attr.scoped)
	default:
		size = unsafe.Offsetof(attr.net)
	}
	return attr, size
}

// llLacks returns what a version of the ABI lacks, and only what is worth a
// warning if that is all that counts.
func llLacks(abi int, all bool) string {
	var s []string
	for _, r := range llRights {
		if r.abi > abi && r.what != "" && (all || r.warn) {
			s = append(s, fmt.Sprintf("%s (ABI %d)", r.what, r.abi))
		}
	}
	return strings.Join(s, ", ")
}

// landlock forbids all that it can. No rule allows anything.
func landlock() []*Missing {
	abi, errno := llCreate(nil, 0, llCreateVersion)
	if errno != 0 {
		return []*Missing{{"Landlock", errno}}
	}
	var missing []*Missing
	if lacks := llLacks(int(abi), false); lacks != "" {
		missing = append(missing, &Missing{"Landlock", fmt.Errorf("the kernel has ABI %d, without %s: %w", abi, lacks, unix.EOPNOTSUPP)})
	}
	attr, size := llAttr(int(abi))
	if errata, errno := llCreate(nil, 0, llCreateErrata); errno != 0 || errata&llErratumSignal == 0 {
		attr.scoped &^= llScopeSignal
	}
	fd, errno := llCreate(&attr, size, 0)
	if errno != 0 {
		return []*Missing{{"Landlock", errno}}
	}
	defer unix.Close(int(fd))
	if err := allThreads("Landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); err != nil {
		return []*Missing{{"Landlock", err}}
	}
	return missing
}

func llCreate(attr *llRulesetAttr, size, flags uintptr) (uintptr, unix.Errno) {
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), size, flags)
	return fd, errno
}
