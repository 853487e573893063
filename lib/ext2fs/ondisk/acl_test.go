package ondisk

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
)

var (
	aclMinimal = ACL{{ACLUserObj, 6, ACLUndefined}, {ACLGroupObj, 4, ACLUndefined}, {ACLOther, 0, ACLUndefined}}
	aclNamed1  = ACL{{ACLUserObj, 7, ACLUndefined}, {ACLUser, 6, 1000}, {ACLGroupObj, 5, ACLUndefined},
		{ACLGroup, 1, 5}, {ACLMask, 6, ACLUndefined}, {ACLOther, 4, ACLUndefined}}
)

func TestACLFormats(t *testing.T) {
	for _, a := range []ACL{aclMinimal, aclNamed1} {
		d := a.AppendDisk(nil)
		b, err := ParseACL(d)
		if err != nil || !bytes.Equal(b.AppendDisk(nil), d) {
			t.Errorf("disk: %v, %v", b, err)
		}
		x := a.AppendXattr(nil)
		c, err := ParseXattrACL(x)
		if err != nil || !bytes.Equal(c.AppendXattr(nil), x) || len(c) != len(a) {
			t.Errorf("xattr: %v, %v", c, err)
		}
	}
	if n := len(aclMinimal.AppendDisk(nil)); n != 4+3*4 {
		t.Errorf("%d bytes on disk", n)
	}
	for _, b := range [][]byte{{1}, {2, 0, 0, 0}, {1, 0, 0, 0, 1}, {1, 0, 0, 0, 2, 0, 7, 0}, {1, 0, 0, 0, 3, 0, 7, 0}} {
		if _, err := ParseACL(b); !errors.Is(err, EUCLEAN) {
			t.Errorf("%x: %v", b, err)
		}
	}
	for _, c := range []struct {
		b    []byte
		want error
	}{
		{nil, nil}, {[]byte{2, 0, 0, 0}, nil}, {[]byte{2, 0}, syscall.EINVAL}, {[]byte{1, 0, 0, 0}, syscall.EOPNOTSUPP},
		{[]byte{2, 0, 0, 0, 1, 0, 7, 0}, syscall.EINVAL}, {[]byte{2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0}, syscall.EINVAL},
	} {
		if a, err := ParseXattrACL(c.b); err != c.want || a != nil {
			t.Errorf("%x: %v, %v", c.b, a, err)
		}
	}
}

func TestACLValid(t *testing.T) {
	u, g, m, o := aclMinimal[0], aclMinimal[1], ACLEntry{ACLMask, 7, ACLUndefined}, aclMinimal[2]
	nu, ng := ACLEntry{ACLUser, 7, 1}, ACLEntry{ACLGroup, 7, 1}
	for _, c := range []struct {
		a    ACL
		want bool
	}{
		{aclMinimal, true}, {aclNamed1, true}, {ACL{u, g, m, o}, true}, {ACL{u, nu, nu, g, ng, m, o}, true},
		{nil, false}, {ACL{u, g}, false}, {ACL{u, nu, g, o}, false}, {ACL{u, g, ng, o}, false},
		{ACL{g, u, o}, false}, {ACL{u, g, nu, m, o}, false}, {ACL{u, g, o, o}, false}, {ACL{u, g, o, m}, false},
		{ACL{{ACLUserObj, 8, 0}, g, o}, false}, {ACL{u, {ACLUser, 7, ACLUndefined}, g, m, o}, false},
	} {
		if c.a.Valid() != c.want {
			t.Errorf("%v: %v", c.a, !c.want)
		}
	}
}

func TestACLModes(t *testing.T) {
	if m, eq := aclMinimal.EquivMode(0o104777); m != 0o104640 || !eq {
		t.Errorf("%o %v", m, eq)
	}
	if m, eq := aclNamed1.EquivMode(0o100000); m != 0o100764 || eq {
		t.Errorf("%o %v", m, eq)
	}
	a := append(ACL(nil), aclNamed1...)
	if !a.Chmod(0o100751) || a[0].Perm != 7 || a[2].Perm != 5 || a[4].Perm != 5 || a[5].Perm != 1 {
		t.Errorf("chmod %v", a)
	}
	a = append(ACL(nil), aclNamed1...)
	if m, eq, ok := a.Create(0o100640); m != 0o100640 || eq || !ok || a[0].Perm != 6 || a[4].Perm != 4 || a[5].Perm != 0 || a[2].Perm != 5 {
		t.Errorf("create %o %v %v: %v", m, eq, ok, a)
	}
	a = append(ACL(nil), aclMinimal...)
	if m, eq, ok := a.Create(0o102777); m != 0o102640 || !eq || !ok {
		t.Errorf("create %o %v %v: %v", m, eq, ok, a)
	}
	if _, _, ok := (ACL{aclMinimal[0]}).Create(0o777); ok {
		t.Error("create without a group entry")
	}
}

func FuzzACL(f *testing.F) {
	f.Add(aclNamed1.AppendDisk(nil))
	f.Add(aclNamed1.AppendXattr(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := ParseACL(b); err == nil {
			if !bytes.Equal(a.AppendDisk(nil), b) {
				t.Fatal("disk format changes")
			}
			a.Valid()
			a.Create(0o644)
		}
		if a, err := ParseXattrACL(b); err == nil && a != nil {
			if c, err := ParseXattrACL(a.AppendXattr(nil)); err != nil || len(c) != len(a) {
				t.Fatal("xattr format changes")
			}
			a.EquivMode(0)
		}
	})
}
