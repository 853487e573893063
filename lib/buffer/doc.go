// Package buffer caches the metadata blocks of a device, by block number, in a
// bounded amount of memory.
//
// A [Buf] is pinned from the call that returned it until [Buf.Put]; while it is
// pinned it is not evicted and its bytes do not move. A block is verified once,
// when it is first read as a certain kind ([Ops]), and sealed (checksummed) on
// the copies that leave memory for the journal or the device, never in place:
// so the bytes of a Buf change only through the code that owns its meaning.
//
//	b, err := cache.Read(blk, bitmapOps, buffer.Ctx{Seed: seed})
//	if err != nil {
//		return err
//	}
//	defer b.Put()
//	use(b.Data())
//
// The cache itself never writes. Whoever changes a block does so inside a
// transaction of package jbd2, which keeps the buffer pinned until its bytes
// are at home; when such buffers hold too much of the memory, the function of
// [Cache.OnPressure] is asked to write some of them back.
//
// Locking: every method is safe for concurrent use. The bytes of a Buf are
// guarded by the locks of the layer above; the cache reads them only to verify
// a block, before it is handed out as that kind.
package buffer
