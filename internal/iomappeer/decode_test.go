package iomappeer

import (
	"testing"
	"time"
)

// FuzzSend gives the kernel any bytes as a reply or a notification: it refuses
// what is malformed, and never panics.
func FuzzSend(f *testing.F) {
	for name := range vectors {
		if name != "V1" {
			f.Add(vector(f, name), false)
			f.Add(vector(f, name), true)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, v7 bool) {
		prof := May26
		if v7 {
			prof = V7
		}
		k := New(Config{Profile: prof, Watchdog: 10 * time.Second})
		k.iomap, k.mayIomap = true, true
		k.devs[1] = &backing{id: 1, dev: newMemDev(1 << 16), size: 1 << 30}
		in := &Inode{k: k, nodeid: 12, attrIno: 12, iomap: true, exclusive: true}
		in.init()
		k.inodes[12] = in
		k.root = &Inode{k: k, nodeid: 1, dir: true}
		k.root.init()
		// Whatever its number says, the message answers one request of each kind.
		for _, ask := range []func(){
			func() { in.ask(k.task("write"), OpWrite, 8192, 4096, 0) },
			func() { in.fetchAttr(k.task("stat")) },
			func() { k.lookup(k.task("lookup"), k.root, "a") },
			func() { k.config(k.task("mount")) },
			func() { in.sendIOEnd(&ioend{pos: 8192, end: 12192, dev: 1, flags: IOEndWriteback | IOEndUnwritten}) },
		} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				ask()
			}()
			r, _ := k.next()
			msg := append([]byte(nil), b...)
			if len(msg) >= outHeaderSize && native.Uint64(msg[8:]) != 0 {
				native.PutUint64(msg[8:], r.unique)
			}
			k.send(msg)
			k.finish2(r)
			<-done
		}
		// What the cache holds after any notification is sound.
		last := uint64(0)
		for _, m := range in.cache.read.maps {
			if m.Length == 0 || m.Offset < last || m.End() <= m.Offset {
				t.Fatalf("the cache has %v", in.cache.read.maps)
			}
			last = m.End()
		}
	})
}

// finish2 ends a request that may have ended already.
func (k *Kernel) finish2(r *request) {
	select {
	case <-r.done:
	default:
		k.finish(r, 5, nil)
	}
}
