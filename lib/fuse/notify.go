//go:build linux

package fuse

import (
	"syscall"
	"unsafe"
)

// Notify sends an unsolicited message with the given payload. The error is what
// the kernel made of it.
//
// The kernel handles a notification before Notify returns and takes locks for
// it that it also holds while it waits for answers: the parent directory's for
// the entry notifications, pages' for those about data. So a handler must not
// send one about what its own request is about.
func (c *Conn) Notify(code NotifyCode, payload ...[]byte) error {
	h := &OutHeader{Error: int32(code)}
	if errno := c.tr.notify(h, payload...); errno != 0 {
		return errno
	}
	return nil
}

// bytesOf views a struct of the wire.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// InvalInode drops the kernel's cached attributes of a node, and its cached
// data from off for n bytes; n 0 is to the end, off negative none. It returns
// ENOENT if the kernel does not know the node.
func (c *Conn) InvalInode(node uint64, off, n int64) error {
	return c.Notify(NotifyInvalInode, bytesOf(&NotifyInvalInodeOut{Ino: node, Off: off, Len: n}))
}

// InvalEntry drops a cached name, or with ExpireOnly only its validity. It
// returns ENOENT if the kernel does not know the directory or the name.
func (c *Conn) InvalEntry(parent uint64, name string, flags uint32) error {
	out := NotifyInvalEntryOut{Parent: parent, Namelen: uint32(len(name)), Flags: flags}
	return c.Notify(NotifyInvalEntry, bytesOf(&out), nulled(name))
}

// Delete is InvalEntry for a name that is gone, if it still is child's:
// watchers are told.
func (c *Conn) Delete(parent, child uint64, name string) error {
	out := NotifyDeleteOut{Parent: parent, Child: child, Namelen: uint32(len(name))}
	return c.Notify(NotifyDelete, bytesOf(&out), nulled(name))
}

// Store puts data into the kernel's cache of a node, at off.
func (c *Conn) Store(node uint64, off int64, data []byte) error {
	out := NotifyStoreOut{NodeID: node, Offset: uint64(off), Size: uint32(len(data))}
	return c.Notify(NotifyStore, bytesOf(&out), data)
}

// Retrieve asks for cached data of a node, which arrives as a NOTIFY_REPLY
// request whose Unique is unique.
func (c *Conn) Retrieve(unique, node uint64, off int64, n uint32) error {
	out := NotifyRetrieveOut{NotifyUnique: unique, NodeID: node, Offset: uint64(off), Size: n}
	return c.Notify(NotifyRetrieve, bytesOf(&out))
}

// Prune asks the kernel to drop what it can of its references to nodes. It
// needs protocol 7.45; before, the kernel returns EINVAL.
func (c *Conn) Prune(nodes []uint64) error {
	if len(nodes) == 0 {
		return nil
	}
	out := NotifyPruneOut{Count: uint32(len(nodes))}
	ids := unsafe.Slice((*byte)(unsafe.Pointer(&nodes[0])), 8*len(nodes))
	return c.Notify(NotifyPrune, bytesOf(&out), ids)
}

func nulled(name string) []byte { return append([]byte(name), 0) }

// IsUnmounted tells whether err, from a notification or a Reply, means that
// there is no mount any more.
func IsUnmounted(err error) bool {
	return err == syscall.ENODEV || err == syscall.ENOTCONN || err == syscall.ECONNABORTED
}
