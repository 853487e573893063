package ext2fs

// How many blocks an operation may change, for FS.start. Estimates are upper
// bounds: a handle that changes more fails.
const (
	creditsInode  = 1 // the inode's block of the inode table
	creditsSuper  = 1 // the superblock
	creditsGroup  = 2 // a bitmap and the group's descriptor
	creditsAlloc  = creditsGroup
	creditsFree   = creditsGroup
	creditsIalloc = creditsGroup + 1 + 2*creditsInode // with a fresh block bitmap and inode table block
	creditsIfree  = creditsGroup + creditsInode

	// creditsOrphan is for one orphanAdd or orphanDel: superblock or orphan
	// file block, and the inodes before it in the list and itself.
	creditsOrphan = creditsSuper + 1 + 2*creditsInode

	// creditsExtent is for one insertion into a mapping tree: at each of at most
	// five levels a split (a new node), and the inode.
	creditsExtent = 5*(2+creditsGroup) + creditsSuper + creditsInode

	// creditsData is for one IOEnd: bits set in up to two groups, the mapping.
	creditsData = 2*creditsGroup + creditsExtent

	// creditsCreate is for a new inode with an inherited ACL in a block of its
	// own; the entry comes on top (dirAddCredits), and what its directory and
	// itself have to be stored.
	creditsCreate  = creditsIalloc + 2*(creditsAlloc+1) + creditsOrphan + 2*creditsInode
	creditsMkdir   = creditsAlloc + creditsExtent + 1
	creditsSymlink = creditsAlloc + creditsExtent + 1
	creditsLink    = 2 * creditsInode
	creditsUnlink  = 2*creditsInode + 3 // an entry's block, and an index emptied with it
	creditsRename  = 5*creditsInode + 4 // entries of both directories, ".." of what moves
)
