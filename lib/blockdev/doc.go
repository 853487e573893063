// Package blockdev is bytes at offsets: the Device that everything above reads
// and writes, the devices there are (File, Mem), and wrappers that cut, shield,
// break or record another device (Window, ReadOnly, Overlay, Fault, Record).
//
// It knows no file system and keeps no cache: a read asks the device, a write
// has reached the device, if not yet stable storage, when it returns. Offsets
// and lengths are bytes, and any are allowed; multiples of Align(dev), from
// buffers aligned to it, are fastest.
//
// Devices are safe for concurrent use. Two concurrent writes that overlap leave
// either one's bytes where they do, and never disturb a byte that neither named.
// A wrapper owns what it wraps: its Close closes both.
//
//	dev, err := blockdev.Open("/dev/sdb1", blockdev.Options{Exclusive: true})
//	if err != nil {
//		return err
//	}
//	defer dev.Close()
//	sb := make([]byte, 1024)
//	_, err = dev.ReadAt(sb, 1024)
package blockdev
