package fuse

import "unsafe"

// AppendDirent appends the record of one entry to buf, for READDIR: in is the
// node, off the cookie from which the next READDIR continues behind it, typ a
// DT_ constant. It reports false, and leaves buf, if the record does not fit
// into cap(buf).
func AppendDirent(buf []byte, ino, off uint64, typ uint32, name []byte) ([]byte, bool) {
	size := (direntSize + len(name) + 7) &^ 7
	if len(buf)+size > cap(buf) {
		return buf, false
	}
	rec := buf[len(buf) : len(buf)+size]
	d := (*Dirent)(unsafe.Pointer(&rec[0]))
	*d = Dirent{Ino: ino, Off: off, Namelen: uint32(len(name)), Type: typ}
	clear(rec[direntSize+copy(rec[direntSize:], name):])
	return buf[:len(buf)+size], true
}

// AppendDirentplus is AppendDirent for READDIRPLUS. It returns the EntryOut to
// fill, zeroed: left so, it gives the kernel a name without a reference. It
// returns nil if the record does not fit.
func AppendDirentplus(buf []byte, ino, off uint64, typ uint32, name []byte) ([]byte, *EntryOut) {
	size := (direntplusSize + len(name) + 7) &^ 7
	if len(buf)+size > cap(buf) {
		return buf, nil
	}
	rec := buf[len(buf) : len(buf)+size]
	d := (*Direntplus)(unsafe.Pointer(&rec[0]))
	*d = Direntplus{Dirent: Dirent{Ino: ino, Off: off, Namelen: uint32(len(name)), Type: typ}}
	clear(rec[direntplusSize+copy(rec[direntplusSize:], name):])
	return buf[:len(buf)+size], &d.Entry
}
