// Package populate fills a new file system from what image builders have: a
// directory, a tar, an OCI image or a list of layers.
//
// It works in two steps. [Load] reads what a [Source] has into a [Tree]: names,
// attributes, and where the contents are found, but not the contents. All that
// Options say of owners, times, labels and exclusions is applied there.
// [Tree.Write] then writes the tree into a file system that was just made, and
// [Tree.Fit] tells beforehand how large it has to be:
//
//	tree, err := populate.Load(ctx, populate.Dir("rootfs"), populate.Options{})
//	if err != nil {
//		return err
//	}
//	defer tree.Close()
//	size, err := tree.Fit(ctx, format, populate.SizeOptions{BlockSize: 4096})
//	// format a device of size.Bytes
//	totals, err := tree.Write(ctx, dev)
//
// The same tree gives the same bytes: entries are written in the order of their
// names by one goroutine, whatever order and however many goroutines they were
// read in. While Write runs, or from before the file system is made with [Hold],
// the superblock is not on the device, so an image that was not finished is not
// a file system, and cannot be taken for one.
//
// Inputs are hostile: names cannot leave the tree, and nothing that an archive
// says decides how much memory is taken, other than by what it really holds.
// A Tree takes Options.Memory of memory however many names it has: the rest of it,
// about 150 bytes an entry, is in a temporary file, as is what is no file already.
package populate
