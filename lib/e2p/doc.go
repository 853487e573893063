// Package e2p has values of the file system as people write them: the names of
// features, default mount options and inode flags, fields of structures by name,
// as e2fsprogs prints and reads them, and the listings of superblocks, groups,
// journals and inodes that scripts take apart, byte for byte as e2fsprogs 1.47
// prints them. It is pure: no I/O but to the writer that it is given, no state;
// every function is safe for concurrent use.
//
//	fmt.Println(e2p.FeatureNames(e2p.FeaturesOf(sb)))
//	err := e2p.ListSuper(os.Stdout, sb, e2p.Names{})
package e2p
