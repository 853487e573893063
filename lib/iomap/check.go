package iomap

import "fmt"

// Check tells what makes m unfit as the answer for pos, by the rules that the
// kernel applies to a server's mappings; nil if nothing does. blockSize and
// maxBytes are the file system's; write says that m is the write mapping.
func (m *Mapping) Check(pos, blockSize, maxBytes int64, write bool) error {
	hasDev := m.Dev != 0
	switch {
	case m.Type > Inline && m.Type < NoCache:
		return fmt.Errorf("mapping of unknown %v", m.Type)
	case m.Flags&^0xff != 0:
		return fmt.Errorf("mapping flags %#x", uint16(m.Flags))
	case m.Length <= 0 || m.Offset < 0:
		return fmt.Errorf("mapping of %d bytes at %d", m.Length, m.Offset)
	case (m.Offset|m.Length)&(blockSize-1) != 0:
		return fmt.Errorf("mapping of %d bytes at %d: not in blocks", m.Length, m.Offset)
	case m.Offset+m.Length < m.Offset:
		return fmt.Errorf("mapping of %d bytes at %d: too long", m.Length, m.Offset)
	case m.Offset >= maxBytes:
		return fmt.Errorf("mapping at %d, beyond the largest file", m.Offset)
	case m.Type.HasAddr() != hasDev || m.Type.HasAddr() != (m.Addr != NullAddr):
		return fmt.Errorf("%v mapping with device %d, address %#x", m.Type, m.Dev, m.Addr)
	case m.Type == PureOverwrite && (!write || m.Flags != 0):
		return fmt.Errorf("pure-overwrite out of place")
	case m.Addr != NullAddr && m.Addr+uint64(m.Length) < m.Addr:
		return fmt.Errorf("mapping to %#x: too long", m.Addr)
	case pos < m.Offset || pos >= m.End():
		return fmt.Errorf("mapping of %d bytes at %d does not cover %d", m.Length, m.Offset, pos)
	}
	return nil
}

// Check checks both mappings of an answer of Begin for pos.
func (p *Pair) Check(pos, blockSize, maxBytes int64) error {
	if err := p.Read.Check(pos, blockSize, maxBytes, false); err != nil {
		return err
	}
	return p.Write.Check(pos, blockSize, maxBytes, true)
}
