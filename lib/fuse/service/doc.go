// Package service speaks the protocol by which a FUSE server without privilege
// gets what it serves: a mount helper, which may open files and mount, connects
// to the server's socket, passes /dev/fuse, and does what the server asks for.
// It is libfuse's fuse_service protocol, version 1; either end works with
// libfuse's counterpart.
//
// One packet of an AF_UNIX SOCK_SEQPACKET socket is one message; numbers are
// big-endian, strings end with NUL, a message carries at most one descriptor.
// The helper greets, then passes its arguments and /dev/fuse; from then on the
// server asks and the helper answers:
//
//	helper                        server
//	HelloCmd               ───▶
//	                       ◀───   HelloReply
//	OpenReply "argv"       ───▶
//	OpenReply "fusedev"    ───▶
//	                       ◀───   OpenCmd, OpenBdevCmd    (any number)
//	OpenReply + descriptor ───▶
//	                       ◀───   FsopenCmd, SourceCmd, MntptCmd, MntoptsCmd
//	SimpleReply to each    ───▶
//	                       ◀───   MountCmd
//	SimpleReply            ───▶
//	                       ◀───   ByeCmd
//
// Neither end trusts the other. Every wait has a deadline. [Server.Seal] ends
// the part in which the server can be given descriptors: what it does then is
// reads and writes of the socket, so that a system call filter can forbid the
// rest. A [Helper] opens nothing any more once the server has asked for the
// mount: a server that has begun to parse a stranger's file system and was
// taken over by it can have nothing from the helper but that mount.
//
// The messages are for any system, the two ends for Linux.
package service
