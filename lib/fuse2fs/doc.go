// Package fuse2fs is the FUSE server: requests of the kernel turned into
// operations of lib/ext2fs.
//
// A node id is an inode number; only the root, 1 to FUSE and 2 on disk, is
// translated. The server keeps no table of nodes: what the kernel holds
// references to is counted by ext2fs (Hold, Release), because an unlinked inode
// must live until the last of them is forgotten.
//
// We are the only writer of the device, so the kernel may cache everything:
// names, absent names, attributes, symlinks, directories and pages, without
// time limit and with write-back. Files are not opened or closed at the
// server.
//
// Permission is the kernel's to check (default_permissions, ACLs); what a file
// operation does is ext2fs's to decide. This package holds no lock of its own.
// Handlers run on the connection's workers, but for those that have to wait for
// the kernel to write back what it has cached.
package fuse2fs
