package populate

import "encoding/binary"

// seg is a range of a file that is data.
type seg struct{ off, n, at int64 } // at is its place in the contents

// What of a sparse file is data is a list in the heap, in parts: the ref of the
// next part, 8 bytes, then for each range three numbers, as varints.
const segPart = 256 // ranges in a part

// segWriter makes such a list.
type segWriter struct {
	s     *store
	first ref
	last  ref
	n     int // ranges in buf
	buf   []byte
}

// add adds a range, which comes after those before.
func (w *segWriter) add(r seg) error {
	if w.n == 0 {
		w.buf = append(w.buf[:0], make([]byte, 8)...)
	}
	for _, v := range [...]int64{r.off, r.n, r.at} {
		w.buf = binary.AppendUvarint(w.buf, uint64(v))
	}
	if w.n++; w.n < segPart {
		return nil
	}
	return w.flush()
}

func (w *segWriter) flush() error {
	at, err := w.s.appendBytes(w.buf)
	if err == nil && w.last != 0 {
		var next [8]byte
		binary.LittleEndian.PutUint64(next[:], uint64(at))
		err = w.s.patchBytes(w.last, next[:])
	}
	if w.first == 0 {
		w.first = at
	}
	w.last, w.n = at, 0
	return err
}

// end returns the list. It has a place even if nothing is in it.
func (w *segWriter) end() (ref, error) {
	if w.n == 0 && w.first == 0 {
		w.buf = make([]byte, 8)
	} else if w.n == 0 {
		return w.first, nil
	}
	err := w.flush()
	return w.first, err
}

// data calls f with each range of the file that is data.
func (t *Tree) data(n *node, f func(seg) error) error {
	if n.size == 0 || !n.isReg() {
		return nil
	}
	if n.aux == 0 {
		return f(seg{0, n.size, n.at})
	}
	for part := n.aux; part != 0; {
		b, err := t.bytes(part)
		if err != nil {
			return err
		}
		part = ref(binary.LittleEndian.Uint64(b))
		for b = b[8:]; len(b) > 0; {
			var v [3]int64
			for i := range v {
				x, k := binary.Uvarint(b)
				v[i], b = int64(x), b[k:]
			}
			if v[1] == 0 {
				continue
			}
			if err := f(seg{v[0], v[1], n.at + v[2]}); err != nil {
				return err
			}
		}
	}
	return nil
}
