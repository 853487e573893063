package main

// topics are the texts of --help.
var topics = map[string]string{
	"usage": `Usage: mke2fs [options] device [size]

Makes an ext2, ext3 or ext4 file system on DEVICE, a block device or an image
file, which is created if a SIZE is given. DEVICE#2, DEVICE#label=NAME and
DEVICE#uuid=UUID are partitions of a disk or its image. What is made follows
the options, then mke2fs.conf, by the type (-t) and the usage types (-T).

  -t TYPE            ext2, ext3, ext4; also by the name: mkfs.ext4
  -T TYPE[,...]      usage: small, big, news, largefile, ...; by size if not given
  -b SIZE            block size, 1024 to 65536; -SIZE: at least that
  -C SIZE            cluster size, with -O bigalloc
  -I SIZE            inode size;  -i BYTES per inode;  -N COUNT of inodes
  -g BLOCKS          per group;   -G GROUPS per flex group
  -O FEATURE[,...]   set, or with ^ clear; none clears all  (--help=features)
  -E OPTION[,...]    extended options                       (--help=extended)
  -j, -J OPTION,...  with a journal                         (--help=journal)
  -L LABEL  -U UUID|clear|random|time  -M LAST-MOUNTED  -o OS  -r REVISION
  -m PERCENT         reserved for the super-user
  -e BEHAVIOUR       on errors: continue, remount-ro, panic
  -c  -cc  -l FILE   bad blocks: read test, write test, from a list
  -d SOURCE          fill it: a directory, a tar (- for standard input), an OCI
                     image layout; --layer TAR ...: layers (--help=fill)
  --size SIZE|auto   the size as an option; auto: what -d needs (--help=size)
  --reproducible     the same source and options give the same image
  -D                 direct I/O
  -S                 superblocks and descriptors only, for a rescue
  -n                 show what would be made, change nothing
  -z FILE            save what is overwritten, for e2undo
  -F  -FF            force: no questions; even if it seems to be in use
  -q  -v  -V         quiet, verbose, version

Exit status: 0 made; 1 not made: the command line, the device or the layout does
not allow it, or it failed or was interrupted, and then the device holds no file
system.
`,
	"features": `Features (-O), after none or those of mke2fs.conf; ^ clears:

  has_journal        journal                    extent          extents, not block maps
  64bit              over 2^32 blocks           flex_bg         groups' metadata together
  metadata_csum      checksums everywhere       uninit_bg       checksummed descriptors
  metadata_csum_seed checksums survive a new UUID
  sparse_super       few backups                sparse_super2   at most two backups
  resize_inode       room to grow online        meta_bg         descriptors spread out
  bigalloc           clusters of blocks         large_file      files over 2 GiB
  huge_file          files over 2 TiB           dir_nlink       over 65000 subdirectories
  dir_index          hashed directories         large_dir       three levels of them
  filetype           types in directories       extra_isize     large inodes
  ext_attr           attributes                 ea_inode        large ones in inodes
  inline_data        small files in inodes      orphan_file     scalable orphan list
  quota  project     accounting                 mmp             against double mounts
  casefold           case-insensitive names     encrypt verity  per file
  fast_commit        small commits              stable_inodes   inode numbers never change
  journal_dev        an external journal, not a file system

64bit and bigalloc need extent. meta_bg excludes resize_inode, which needs
sparse_super. metadata_csum_seed needs metadata_csum. orphan_file needs a journal.
`,
	"extended": `Extended options (-E), with commas between them:

  offset=BYTES                 start of the file system in the file
  stride=BLOCKS, stripe_width=BLOCKS
                               of a RAID array
  resize=BLOCKS                size up to which it can be grown online
  lazy_itable_init[=0|1]       leave inode tables to the kernel to zero
  lazy_journal_init[=0|1]      do not zero the journal
  assume_storage_prezeroed[=0|1]
                               the device reads as zeros
  discard, nodiscard           tell the device what is not needed, or not
  packed_meta_blocks[=0|1]     metadata at the start of the device
  num_backup_sb=0|1|2          backups under sparse_super2
  desc_size=BYTES              of group descriptors, with 64bit
  hash_seed=UUID               of directory hashes
  root_owner[=UID:GID], root_perms=OCTAL, root_selinux=LABEL
                               of the root directory
  quotatype=usrquota:grpquota:prjquota
  mmp_update_interval=SECONDS
  encoding=utf8|utf8-12.1, encoding_flags=[no]strict
  orphan_file_size=SIZE
  revision=0|1, test_fs, no_copy_xattrs
`,
	"journal": `Journal options (-J), with commas between them:

  size=MIB                     1024 blocks or more
  fast_commit_size=KIB         with -O fast_commit
  location=BLOCK or SIZE       where it starts
  device=PATH, device=LABEL=NAME, device=UUID=UUID
                               an external journal, made by -O journal_dev
  v1_superblock                version 1
`,
	"fill": `What the file system is filled with (-d), as it is made:

  -d DIRECTORY       all that is below it
  -d ARCHIVE, -d -   a tar, plain or compressed with gzip or zstd
  -d LAYOUT          an OCI image layout: a directory with an oci-layout file, or,
                     with --ref or --platform, a tar of one
  --layer TAR        a layer, whose whiteouts apply to those before; repeated
  --ref NAME         the image of that name
  --platform OS/ARCHITECTURE[/VARIANT]
                     the image for that, linux and this machine's if not given

Owners, modes, times, devices, hard links, holes, attributes, ACLs, capabilities
and labels are those of the source, or:

  --owner UID:GID    all is theirs
  --map-uid FROM:TO:COUNT, --map-gid FROM:TO:COUNT
                     shifts ids, in ACLs too; repeated. What none maps is an error
  --device-table FILE
                     name type mode uid gid major minor start increment count
  --exclude PATTERN  leaves out; without a slash: names anywhere. ** is any path
  --exclude-from FILE
                     patterns, one a line
  --file-contexts FILE
                     SELinux labels by path
  -E no_copy_xattrs  no attributes
  -E root_owner, root_perms, root_selinux
                     of the root directory

  --reproducible     UUID, hash seed and times are derived from the source, as
                     with SOURCE_DATE_EPOCH, which is the latest time then

Progress is shown on a terminal, or with -v. Temporary files go to TMPDIR: what a
pipe or a compressed archive has, and what sizes are tried in.
`,
	"size": `The size is a number with a suffix: k, m, g, t for the powers of 1024 in bytes, or
s for sectors of 512 bytes. Without one it is in KiB, or, with -b, in blocks.
Without a size all of the device is used. --size SIZE is the same as an option.

With -d or --layer the size can be found, by trying:

  --size auto        what the contents need; a file is cut to that
  --free SIZE        and so much that users can still write, and inodes for it
  --max SIZE         fails if that would be more than so much
  --shrink           the very smallest, which takes longer; with a SIZE, that is
                     the most it may have, and what type and block size follow

The number of inodes is then what is needed, unless -N or -i give more.
`,
}
