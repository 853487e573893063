package populate

import (
	"encoding/binary"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/e2kit/e2kit/lib/endian"
	"github.com/e2kit/e2kit/lib/ext2fs/ondisk"
)

// nodeID is the number of a node in the store.
type nodeID uint32

// rootID is the root, which alone is not in the store but in the Tree.
const rootID nodeID = 1

// ref is where bytes of a length of their own are in the store; 0 is none.
type ref uint64

// store is what a tree is made of, in pages: records of nodes, a B+tree of names
// by directory, another one of files that may have several names, and a heap of
// all that has no fixed size.
type store struct {
	mu    sync.Mutex
	pages pager    // guarded by mu, as all below
	table []uint32 // pages of the records
	nodes nodeID   // the last one that was given out
	names btree
	inos  btree
	heap  []uint32 // pages of the heap
	used  int64    // bytes of the heap
	round uint32   // of walks and numberings, see visit and number
}

// nodeRec is a node as it is kept.
type nodeRec struct {
	Mode                 endian.LE16
	Flags                [1]byte
	_                    [1]byte
	Links, UID, GID      endian.LE32
	Rdev, Blob           endian.LE32
	Size, At             endian.LE64
	Aux                  endian.LE64 // the target of a link, or the ranges of a sparse file
	Attrs                endian.LE64
	AtimeSec, MtimeSec   endian.LE64
	AtimeNsec, MtimeNsec endian.LE32
	Visited              endian.LE32 // the last round that met it
	Numbered, Number     endian.LE32 // the last round that gave it a number
}

const (
	nodeSize  = int(unsafe.Sizeof(nodeRec{}))
	pageNodes = pageSize / nodeSize

	flagImplied = 1
	flagFixed   = 2
)

func newStore(memory int64, create func() (*os.File, error)) *store {
	s := &store{nodes: rootID}
	s.pages = pager{most: int(min(memory/pageSize, math.MaxInt32)), create: create}
	s.names.pg, s.inos.pg = &s.pages, &s.pages
	return s
}

// recordLocked returns the record of a node, in place.
func (s *store) recordLocked(id nodeID, change bool) (*nodeRec, error) {
	i := int(id)
	b, err := s.pages.get(s.table[i/pageNodes], change)
	if err != nil {
		return nil, err
	}
	return endian.View[nodeRec](b[i%pageNodes*nodeSize:]), nil
}

// addNode keeps a node that is not kept yet.
func (s *store) addNode(n *node) (nodeID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == math.MaxInt32 {
		return 0, syscall.E2BIG
	}
	id := s.nodes + 1
	for int(id)/pageNodes >= len(s.table) {
		no, _, err := s.pages.add()
		if err != nil {
			return 0, err
		}
		s.table = append(s.table, no)
	}
	r, err := s.recordLocked(id, true)
	if err != nil {
		return 0, err
	}
	r.set(n)
	s.nodes = id
	return id, nil
}

// getNode returns a node that is kept.
func (s *store) getNode(id nodeID) (n node, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.recordLocked(id, false)
	if err == nil {
		r.get(&n)
	}
	return n, err
}

// setNode changes a node that is kept.
func (s *store) setNode(id nodeID, n *node) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.recordLocked(id, true)
	if err == nil {
		r.set(n)
	}
	return err
}

func (r *nodeRec) set(n *node) {
	r.Mode.Set(n.mode)
	r.Flags[0] = 0
	if n.implied {
		r.Flags[0] |= flagImplied
	}
	if n.fixed {
		r.Flags[0] |= flagFixed
	}
	r.Links.Set(n.links)
	r.UID.Set(n.uid)
	r.GID.Set(n.gid)
	r.Rdev.Set(n.rdev)
	r.Blob.Set(n.blob)
	r.Size.Set(uint64(n.size))
	r.At.Set(uint64(n.at))
	r.Aux.Set(uint64(n.aux))
	r.Attrs.Set(uint64(n.attrs))
	r.AtimeSec.Set(uint64(n.atime.Sec))
	r.AtimeNsec.Set(n.atime.Nsec)
	r.MtimeSec.Set(uint64(n.mtime.Sec))
	r.MtimeNsec.Set(n.mtime.Nsec)
}

func (r *nodeRec) get(n *node) {
	n.mode = r.Mode.Get()
	n.implied, n.fixed = r.Flags[0]&flagImplied != 0, r.Flags[0]&flagFixed != 0
	n.links, n.uid, n.gid = r.Links.Get(), r.UID.Get(), r.GID.Get()
	n.rdev, n.blob = r.Rdev.Get(), r.Blob.Get()
	n.size, n.at = int64(r.Size.Get()), int64(r.At.Get())
	n.aux, n.attrs = ref(r.Aux.Get()), ref(r.Attrs.Get())
	n.atime = ondisk.Time{Sec: int64(r.AtimeSec.Get()), Nsec: r.AtimeNsec.Get()}
	n.mtime = ondisk.Time{Sec: int64(r.MtimeSec.Get()), Nsec: r.MtimeNsec.Get()}
}

// newRound begins a walk or a numbering, of which none has met anything.
func (s *store) newRound() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round++
	return s.round
}

// visit says whether the walk of that round meets a node for the first time.
func (s *store) visit(id nodeID, round uint32) (first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.recordLocked(id, true)
	if err != nil {
		return false, err
	}
	first = r.Visited.Get() != round
	r.Visited.Set(round)
	return first, nil
}

// number returns the number that a round gave a node, 0 if it gave none.
func (s *store) number(id nodeID, round uint32) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.recordLocked(id, false)
	if err != nil || r.Numbered.Get() != round {
		return 0, err
	}
	return r.Number.Get(), nil
}

// setNumber gives a node a number.
func (s *store) setNumber(id nodeID, round, no uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.recordLocked(id, true)
	if err == nil {
		r.Numbered.Set(round)
		r.Number.Set(no)
	}
	return err
}

// appendBytes keeps b in the heap.
func (s *store) appendBytes(b []byte) (ref, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.used
	var head [binary.MaxVarintLen64]byte
	if err := s.heapLocked(head[:binary.PutUvarint(head[:], uint64(len(b)))], at, true); err != nil {
		return 0, err
	}
	if err := s.heapLocked(b, s.used, true); err != nil {
		return 0, err
	}
	return ref(at) + 1, nil
}

// patchBytes overwrites the first bytes of what is kept at r.
func (s *store) patchBytes(r ref, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, _, err := s.placeLocked(r)
	if err != nil {
		return err
	}
	return s.heapLocked(b, at, true)
}

// placeLocked returns where the bytes of r begin, and how many they are.
func (s *store) placeLocked(r ref) (at, n int64, err error) {
	at = int64(r - 1)
	var head [binary.MaxVarintLen64]byte
	k := min(int64(len(head)), s.used-at)
	if err := s.heapLocked(head[:k], at, false); err != nil {
		return 0, 0, err
	}
	v, w := binary.Uvarint(head[:k])
	return at + int64(w), int64(v), nil
}

// bytes returns what is kept at r.
func (s *store) bytes(r ref) ([]byte, error) {
	if r == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, n, err := s.placeLocked(r)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	return b, s.heapLocked(b, at, false)
}

// text returns what is kept at r as a string.
func (s *store) text(r ref) (string, error) {
	b, err := s.bytes(r)
	return string(b), err
}

// heapLocked copies between b and the heap at byte at, which grows as needed.
func (s *store) heapLocked(b []byte, at int64, write bool) error {
	for len(b) > 0 {
		i := int(at / pageSize)
		for i >= len(s.heap) {
			no, _, err := s.pages.add()
			if err != nil {
				return err
			}
			s.heap = append(s.heap, no)
		}
		p, err := s.pages.get(s.heap[i], write)
		if err != nil {
			return err
		}
		p = p[at%pageSize:]
		k := 0
		if write {
			k = copy(p, b)
			s.used = max(s.used, at+int64(k))
		} else {
			k = copy(b, p)
		}
		b, at = b[k:], at+int64(k)
	}
	return nil
}

// dirent is a name's inode and what kind it is. The layer is the one that the
// name was in last.
type dirent struct {
	id       nodeID
	dir, lnk bool
	layer    int32
}

// A dirent in a btree: the node below, then two bits of kind, then the layer.
const (
	direntDir   = 1 << 32
	direntLnk   = 1 << 33
	direntLayer = 34
)

func (d dirent) pack() uint64 {
	v := uint64(d.id) | uint64(d.layer)<<direntLayer
	if d.dir {
		v |= direntDir
	}
	if d.lnk {
		v |= direntLnk
	}
	return v
}

func unpack(v uint64) dirent {
	return dirent{nodeID(v), v&direntDir != 0, v&direntLnk != 0, int32(v >> direntLayer)}
}

// nameKey returns the key of a name in a directory.
func nameKey(dir nodeID, name string, buf *[maxKey + 1]byte) []byte {
	return append(binary.BigEndian.AppendUint32(buf[:0], uint32(dir)), name...)
}

// lookup finds a name.
func (s *store) lookup(dir nodeID, name string) (dirent, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var buf [maxKey + 1]byte
	v, ok, err := s.names.get(nameKey(dir, name, &buf))
	return unpack(v), ok, err
}

// setName gives a name to a node, in place of what has it.
func (s *store) setName(dir nodeID, name string, d dirent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var buf [maxKey + 1]byte
	return s.names.set(nameKey(dir, name, &buf), d.pack())
}

func (s *store) removeName(dir nodeID, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var buf [maxKey + 1]byte
	return s.names.remove(nameKey(dir, name, &buf))
}

// named is a name of a directory.
type named struct {
	name string
	dirent
}

// batch is how many names are taken out of the store at a time.
const batch = 32

// list returns some of the names of a directory in order, those after the given
// one; none at the end. With dirs only those of directories.
func (s *store) list(dir nodeID, after string, dirs bool, out []named) ([]named, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var buf [maxKey + 1]byte
	from := nameKey(dir, after, &buf)
	if after != "" {
		from = append(from, 0) // what comes next: no name has a zero
	}
	err := s.names.scan(from, func(key []byte, v uint64) bool {
		if nodeID(binary.BigEndian.Uint32(key)) != dir {
			return false
		}
		if d := unpack(v); d.dir || !dirs {
			out = append(out, named{string(key[4:]), d})
		}
		return len(out) < cap(out)
	})
	return out, err
}

// each calls f with each name of a directory, in order. f may take names out.
func (s *store) each(dir nodeID, f func(name string, d dirent) error) error {
	after, room := "", make([]named, 0, batch)
	for {
		list, err := s.list(dir, after, false, room[:0])
		if err != nil || len(list) == 0 {
			return err
		}
		for i := range list {
			if err := f(list[i].name, list[i].dirent); err != nil {
				return err
			}
		}
		if len(list) < cap(room) {
			return nil
		}
		after = strings.Clone(list[len(list)-1].name)
	}
}

// inode returns the node of a file of the input by the numbers of its file system
// and inode; 0 if it was not met.
func (s *store) inode(dev, ino uint64) (nodeID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var key [16]byte
	v, _, err := s.inos.get(inodeKey(dev, ino, &key))
	return nodeID(v), err
}

func (s *store) setInode(dev, ino uint64, id nodeID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var key [16]byte
	return s.inos.set(inodeKey(dev, ino, &key), uint64(id))
}

func inodeKey(dev, ino uint64, key *[16]byte) []byte {
	binary.BigEndian.PutUint64(key[:], dev)
	binary.BigEndian.PutUint64(key[8:], ino)
	return key[:]
}
