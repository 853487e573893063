//go:build linux

package testfs

import (
	"fmt"
	"strings"
)

const inlineBug = "Linux 6.18 at times zeroes the start of an inline file that a write makes outgrow its inode"

const noFiletypeBug = "Linux 6.18 sets the file type in entries of new folders without the feature"

// Matrix returns the recipes that every reader and writer of images is tested
// over: the types, the block sizes from 1 KiB to 64 KiB, and each feature alone
// and in the company that it has in use. Names are unique.
//
// Supported tells which of them this machine can make and mount by the kernel.
func Matrix() []Spec {
	const mb = 1 << 20
	var m []Spec
	add := func(s Spec) { m = append(m, s) }

	for _, typ := range []string{"ext2", "ext3", "ext4"} {
		for _, bs := range []int{1024, 2048, 4096, 16384, 65536} {
			s := Spec{Name: fmt.Sprintf("%s-%dk", typ, bs/1024), Type: typ, BlockSize: bs}
			if bs > 4096 {
				s.Size = 256 * mb
			}
			if bs == 1024 && typ == "ext2" {
				s.Size = 48 * mb
			}
			add(s)
		}
	}
	// ext2 and ext3, as old systems made them.
	add(Spec{Name: "ext2-plain", Type: "ext2", BlockSize: 1024, Features: "^ext_attr,^resize_inode,^dir_index,^filetype,^sparse_super,^large_file", KernelBug: noFiletypeBug})
	add(Spec{Name: "ext2-rev0", Type: "ext2", BlockSize: 1024, Features: "none", Revision0: true})
	add(Spec{Name: "ext2-inode256", Type: "ext2", InodeSize: 256})
	add(Spec{Name: "ext3-inode1024", Type: "ext3", InodeSize: 1024})
	add(Spec{Name: "ext3-inode256-1k", Type: "ext3", InodeSize: 256, BlockSize: 1024})

	// ext4, a feature at a time.
	feature := func(name, features string) { add(Spec{Name: "ext4-" + name, Features: features}) }
	feature("nojournal", "^has_journal")
	feature("32bit", "^64bit")
	feature("nocsum", "^metadata_csum")
	feature("nocsum-32bit", "^metadata_csum,^64bit")
	feature("uninit_bg", "^metadata_csum,^64bit,uninit_bg")
	feature("uninit_bg-64bit", "^metadata_csum,uninit_bg")
	feature("csum_seed", "metadata_csum_seed")
	feature("meta_bg", "meta_bg,^resize_inode")
	feature("noflex", "^flex_bg")
	feature("noresize", "^resize_inode")
	feature("noextents", "^extent,^64bit")
	feature("nodirindex", "^dir_index")
	feature("large_dir", "large_dir")
	feature("ea_inode", "ea_inode")
	feature("inline_data", "inline_data")
	feature("nohuge", "^huge_file,^dir_nlink")
	feature("noextraisize", "^extra_isize")
	add(Spec{Name: "ext4-nofiletype", Features: "^filetype", KernelBug: noFiletypeBug})
	feature("noextattr", "^ext_attr")
	feature("stable_inodes", "stable_inodes")
	feature("orphan_file", "orphan_file")
	feature("fast_commit", "fast_commit")
	feature("nosparse", "^sparse_super,^resize_inode")

	add(Spec{Name: "ext4-meta_bg-1k", Features: "meta_bg,^resize_inode,^flex_bg", BlockSize: 1024, Size: 200 * mb})
	add(Spec{Name: "ext4-meta_bg-32bit", Features: "meta_bg,^resize_inode,^64bit,^metadata_csum", BlockSize: 1024, Size: 300 * mb})
	add(Spec{Name: "ext4-sparse_super2", Features: "sparse_super2,^resize_inode", Extended: "num_backup_sb=2", BlockSize: 1024, Size: 100 * mb})
	add(Spec{Name: "ext4-flex-1k", BlockSize: 1024, Size: 150 * mb, Extended: "packed_meta_blocks=0", Args: []string{"-G", "8"}})
	add(Spec{Name: "ext4-packed", Extended: "packed_meta_blocks=1", Size: 300 * mb})
	add(Spec{Name: "ext4-stride", Extended: "stride=16,stripe_width=64", Size: 300 * mb})
	add(Spec{Name: "ext4-lazy", Extended: "lazy_itable_init=1,lazy_journal_init=1", Size: 1024 * mb})
	add(Spec{Name: "ext4-lazy-uninit_bg", Features: "^metadata_csum,^64bit,uninit_bg", Extended: "lazy_itable_init=1", Size: 512 * mb})

	// bigalloc: the cluster as small, usual and large as it gets.
	add(Spec{Name: "ext4-bigalloc-1k-2k", Features: "bigalloc", BlockSize: 1024, Cluster: 2048})
	add(Spec{Name: "ext4-bigalloc-1k-16k", Features: "bigalloc", BlockSize: 1024, Cluster: 16384, Size: 128 * mb, Inodes: 8192})
	add(Spec{Name: "ext4-bigalloc-4k-16k", Features: "bigalloc", Cluster: 16384, Size: 256 * mb})
	add(Spec{Name: "ext4-bigalloc-4k-64k", Features: "bigalloc", Cluster: 65536, Size: 512 * mb, Inodes: 8192})
	add(Spec{Name: "ext4-bigalloc-nojournal", Features: "bigalloc,^has_journal", Cluster: 32768, Size: 256 * mb})
	add(Spec{Name: "ext4-bigalloc-inline", Features: "bigalloc,inline_data", Cluster: 65536, Size: 512 * mb, Inodes: 8192})

	// Inode sizes.
	add(Spec{Name: "ext4-inode128", InodeSize: 128, Features: "^extra_isize"})
	add(Spec{Name: "ext4-inode512", InodeSize: 512})
	add(Spec{Name: "ext4-inode1024-1k", InodeSize: 1024, BlockSize: 1024})
	add(Spec{Name: "ext4-inode4096", InodeSize: 4096, Inodes: 4096, Size: 128 * mb})
	add(Spec{Name: "ext4-inline-inode1024", InodeSize: 1024, Features: "inline_data"})
	add(Spec{Name: "ext4-inline-1k", BlockSize: 1024, Features: "inline_data,^metadata_csum"})
	add(Spec{Name: "ext4-inline-ea_inode", InodeSize: 512, Features: "inline_data,ea_inode"})
	add(Spec{Name: "ext4-ea_inode-1k", BlockSize: 1024, Features: "ea_inode"})
	add(Spec{Name: "ext4-ea_inode-nocsum", Features: "ea_inode,^metadata_csum"})

	// Journals.
	add(Spec{Name: "ext4-journal-small", BlockSize: 1024, Journal: "size=1"})
	add(Spec{Name: "ext4-journal-large", Journal: "size=64", Size: 256 * mb})
	add(Spec{Name: "ext4-journal-data", Mount: "data=journal"})
	add(Spec{Name: "ext4-journal-end", Journal: "size=8,location=60M", Size: 128 * mb})
	add(Spec{Name: "ext4-external", External: true})
	add(Spec{Name: "ext4-fast_commit-orphan_file", Features: "fast_commit,orphan_file,64bit"})

	// Directory hashes, by a file system that had another one before.
	for _, h := range []string{"legacy", "half_md4", "tea"} {
		add(Spec{Name: "ext4-hash-" + h, Tune: [][]string{{"-E", "hash_alg=" + h}}})
	}
	add(Spec{Name: "ext4-hash-signed", Tune: [][]string{{"-E", "hash_alg=half_md4"}}, BlockSize: 1024})

	// All that an image of these years may have at once, and large_dir with
	// blocks so small that the index reaches its third level.
	add(Spec{Name: "ext4-all", InodeSize: 512, Size: 128 * mb,
		Features: "inline_data,ea_inode,large_dir,metadata_csum_seed,orphan_file,fast_commit,stable_inodes"})
	add(Spec{Name: "ext4-large_dir-1k", BlockSize: 1024, Features: "large_dir", Size: 128 * mb, Inodes: 120000})
	for i := range m {
		if strings.Contains(m[i].Features, "inline_data") {
			m[i].KernelLoses = inlineBug
		}
	}
	return m
}
