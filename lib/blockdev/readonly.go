package blockdev

// ReadOnly returns dev with writing, discarding and zeroing refused: EROFS. To
// close it closes dev. A file that is only to be read is better opened so.
func ReadOnly(dev Device) Device { return &readOnly{dev} }

type readOnly struct{ dev Device }

func (r *readOnly) ReadAt(p []byte, off int64) (int, error) { return r.dev.ReadAt(p, off) }

func (r *readOnly) ReadvAt(bufs [][]byte, off int64) (int, error) {
	return ReadvAt(r.dev, bufs, off)
}

func (r *readOnly) WriteAt(p []byte, off int64) (int, error) {
	return 0, writable(int64(len(p)), off, r.dev.Size(), true)
}

func (r *readOnly) WritevAt(bufs [][]byte, off int64) (int, error) {
	return 0, writable(total(bufs), off, r.dev.Size(), true)
}

func (r *readOnly) Discard(off, n int64) error {
	return inRange("discard", off, n, r.dev.Size(), true)
}

func (r *readOnly) ZeroOut(off, n int64) error {
	return inRange("zero out", off, n, r.dev.Size(), true)
}

func (r *readOnly) Size() int64 { return r.dev.Size() }

// Sync has nothing of its own to write, and leaves what others wrote to them.
func (r *readOnly) Sync() error {
	_, err := r.dev.ReadAt(nil, 0) // fails if closed
	return err
}

func (r *readOnly) Close() error { return r.dev.Close() }
func (r *readOnly) Align() int   { return Align(r.dev) }

func (r *readOnly) Info() Info {
	i := InfoOf(r.dev)
	i.ReadOnly, i.DiscardGranularity = true, 0
	return i
}
