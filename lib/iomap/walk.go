package iomap

// Walk calls fn for the mappings of n bytes of f at off, in order, cut to that
// range, until fn returns false.
func Walk(f File, off, n int64, fn func(m Mapping) bool) error {
	for end := off + n; off < end; {
		pair, err := f.Begin(Report, off, end-off)
		if err != nil {
			return err
		}
		m := pair.Read
		if m.Offset < off {
			if m.Addr != NullAddr {
				m.Addr += uint64(off - m.Offset)
			}
			m.Length -= off - m.Offset
			m.Offset = off
		}
		m.Length = min(m.Length, end-off)
		if !fn(m) {
			return nil
		}
		off += m.Length
	}
	return nil
}

// SeekData returns the first offset at or after off, below size, that holds
// data; -1 if there is none. Unwritten blocks hold none.
func SeekData(f File, off, size int64) (int64, error) { return seek(f, off, size, true, -1) }

// SeekHole returns the first offset at or after off that holds no data; size,
// the file's size, if there is none before it.
func SeekHole(f File, off, size int64) (int64, error) { return seek(f, off, size, false, size) }

func seek(f File, off, size int64, data bool, none int64) (int64, error) {
	for off < size {
		pair, err := f.Begin(Report, off, size-off)
		if err != nil {
			return 0, err
		}
		m := &pair.Read
		if isData := m.Type != Hole && m.Type != Unwritten; isData == data {
			return off, nil
		}
		off = m.End()
	}
	return none, nil
}
