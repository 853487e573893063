package main

import (
	"errors"
	"fmt"

	"github.com/e2kit/e2kit/lib/ext2fs"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

func init() {
	register(groupXattrs,
		request{names: []string{"list_quota", "lq"}, args: "user|group|project", help: "list what ids use, and their limits", needs: needFS, min: 1, max: 1, run: listQuota},
		request{names: []string{"get_quota", "gq"}, args: "user|group|project id", help: "show what an id uses, and its limits", needs: needFS, min: 2, max: 2, run: getQuota},
	)
}

func (s *session) quota(name string) (*ext2fs.Raw, int, error) {
	r, err := s.useRaw()
	if err != nil {
		return nil, 0, err
	}
	kind, err := ext2fs.QuotaKind(name)
	switch {
	case err != nil:
		return nil, 0, err
	case !r.Super().HasROCompat(ondisk.ROCompatQuota):
		return nil, 0, errors.New("the file system has no quota feature")
	case r.QuotaIno(kind) == 0:
		return nil, 0, fmt.Errorf("there is no %s quota", quotaTitle(kind))
	}
	return r, kind, nil
}

func quotaTitle(kind int) string {
	return map[int]string{ext2fs.QuotaUser: "user", ext2fs.QuotaGroup: "group", ext2fs.QuotaProject: "project"}[kind]
}

func (s *session) quotaHead(kind int) {
	fmt.Fprintf(s.out, "%7s id      space    quota    limit      inodes    quota    limit\n", quotaTitle(kind))
}

func (s *session) quotaLine(q *ext2fs.RawQuota) {
	fmt.Fprintf(s.out, "%10d %10d %8d %8d    %8d %8d %8d\n", q.ID, q.Space, q.BlockSoft, q.BlockHard, q.Inodes, q.InodeSoft, q.InodeHard)
}

func listQuota(s *session, a *args) error {
	r, kind, err := s.quota(a.word(0))
	if err != nil {
		return err
	}
	if s.json {
		l := s.list()
		err = r.Quotas(kind, func(q *ext2fs.RawQuota) bool { return l.add(q) == nil && !s.interrupted() })
		l.end()
		return err
	}
	s.quotaHead(kind)
	return r.Quotas(kind, func(q *ext2fs.RawQuota) bool {
		s.quotaLine(q)
		return !s.interrupted()
	})
}

func getQuota(s *session, a *args) error {
	r, kind, err := s.quota(a.word(0))
	if err != nil {
		return err
	}
	id, err := parseNumber(a.word(1), 32)
	if err != nil {
		return err
	}
	found := ext2fs.RawQuota{ID: uint32(id)} // an id without an entry uses nothing
	err = r.Quotas(kind, func(q *ext2fs.RawQuota) bool {
		if q.ID == uint32(id) {
			found = *q
		}
		return q.ID < uint32(id)
	})
	if err != nil {
		return err
	}
	if s.json {
		return s.emit(found)
	}
	s.quotaHead(kind)
	s.quotaLine(&found)
	return nil
}
