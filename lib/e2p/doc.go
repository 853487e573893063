// Package e2p has values of the file system as people write them: the names of
// features, default mount options and inode flags, and fields of structures by
// name, as e2fsprogs prints and reads them. It is pure: no I/O, no state; every function is safe for
// concurrent use.
//
//	fmt.Println(e2p.FeatureNames(e2p.FeaturesOf(sb)))
package e2p
