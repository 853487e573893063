// Package extract takes trees of files out of an image: to a directory, or as
// a tar archive, with owners, modes, times, extended attributes, ACLs, hard
// links and holes. It reads an ext2fs.Raw, so that damaged images give what
// they have: what cannot be read is told, and the rest goes on.
//
// Images may be hostile. No name leads out of the directory that is written
// to, each directory is visited once, and memory stays bounded.
//
//	err := extract.Dir(raw, []extract.Root{{Ino: ondisk.RootIno}}, "/tmp/out", extract.Options{})
package extract
