package populate

import (
	"cmp"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// knownXattr says whether ext4 has a place for an attribute.
func knownXattr(full string) bool {
	switch full {
	case xattrAccess, xattrDefault:
		return true
	}
	for _, p := range [...]string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(full, p) && len(full) > len(p) && len(full) <= 255 && strings.IndexByte(full, 0) < 0 {
			return true
		}
	}
	return false
}

// encodeDev returns a device number in Linux' 32-bit encoding.
func encodeDev(major, minor uint32) uint32 {
	return minor&0xff | major&0xfff<<8 | minor&0xfff00<<12
}

// sortACL puts the entries in the order that ACLs have.
func sortACL(a ondisk.ACL) {
	slices.SortStableFunc(a, func(x, y ondisk.ACLEntry) int {
		if c := cmp.Compare(x.Tag, y.Tag); c != 0 {
			return c
		}
		return cmp.Compare(x.ID, y.ID)
	})
}

// parseACL reads an ACL in its text form, as archives have it: entries that are
// separated by commas or lines, "tag:who:permissions" with the id of who
// perhaps as a fourth field.
func parseACL(text string) (ondisk.ACL, error) {
	var acl ondisk.ACL
	fields := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == 0 })
	for _, f := range fields {
		f, _, _ = strings.Cut(f, "#")
		if f = strings.TrimSpace(f); f == "" {
			continue
		}
		p := strings.Split(strings.TrimPrefix(f, "default:"), ":")
		for i := range p {
			p[i] = strings.TrimSpace(p[i])
		}
		if len(p) == 2 && (p[0] == "mask" || p[0] == "m" || p[0] == "other" || p[0] == "o") {
			p = []string{p[0], "", p[1]}
		}
		if len(p) < 3 || len(p) > 4 {
			return nil, badInput("ACL entry %q", f)
		}
		e := ondisk.ACLEntry{ID: ondisk.ACLUndefined}
		who := p[1] != ""
		switch p[0] {
		case "user", "u":
			e.Tag = ondisk.ACLUserObj
			if who {
				e.Tag = ondisk.ACLUser
			}
		case "group", "g":
			e.Tag = ondisk.ACLGroupObj
			if who {
				e.Tag = ondisk.ACLGroup
			}
		case "mask", "m":
			e.Tag, who = ondisk.ACLMask, false
		case "other", "o":
			e.Tag, who = ondisk.ACLOther, false
		default:
			return nil, badInput("ACL entry %q", f)
		}
		if who {
			id := p[1]
			if len(p) == 4 && p[3] != "" {
				id = p[3]
			}
			var err error
			if e.ID, err = lookupID(id, e.Tag == ondisk.ACLGroup); err != nil {
				return nil, err
			}
		}
		perm, _, _ := strings.Cut(p[2], " ")
		for _, c := range perm {
			switch c {
			case 'r':
				e.Perm |= 4
			case 'w':
				e.Perm |= 2
			case 'x', 'X':
				e.Perm |= 1
			case '-':
			case '0', '1', '2', '3', '4', '5', '6', '7':
				e.Perm |= uint16(c - '0')
			default:
				return nil, badInput("ACL entry %q", f)
			}
		}
		acl = append(acl, e)
	}
	if len(acl) == 0 {
		return nil, nil
	}
	sortACL(acl)
	if !acl.Valid() {
		return nil, badInput("ACL %q", text)
	}
	return acl, nil
}

// lookupID returns the id that is meant by a number or, for archives that have
// no numbers, a name of this machine.
func lookupID(s string, group bool) (uint32, error) {
	if v, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint32(v), nil
	}
	var id string
	if group {
		if g, err := user.LookupGroup(s); err == nil {
			id = g.Gid
		}
	} else if u, err := user.Lookup(s); err == nil {
		id = u.Uid
	}
	v, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, badInput("an ACL is for %q, whose id is not known; make the archive with numeric ids", s)
	}
	return uint32(v), nil
}
