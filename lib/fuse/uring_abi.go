package fuse

import "unsafe"

// A message over io_uring comes in two parts: what is fixed in a header, and
// the rest in a payload. The answer takes the same two, the fixed part after the
// OutHeader counting as payload.

// uringHeader is struct fuse_uring_req_header.
type uringHeader struct {
	inOut [128]byte // InHeader, and for the answer OutHeader
	opIn  [128]byte // the fixed part of the operation
	ent   uringEntInOut
}

// uringEntInOut is struct fuse_uring_ent_in_out.
type uringEntInOut struct {
	flags     uint64
	commitID  uint64 // by which the answer names the request
	payloadSz uint32 // bytes
	_         uint32
	_         uint64
}

// uringCmdReq is struct fuse_uring_cmd_req, at the end of an sqe.
type uringCmdReq struct {
	flags    uint64
	commitID uint64
	qid      uint16 // the queue: the number of its CPU
	_        [6]byte
}

// Commands to /dev/fuse, enum fuse_uring_cmd.
const (
	uringRegister       = 1 // a place for a request, to be filled
	uringCommitAndFetch = 2 // an answer, and its place to be filled again
)

var ( // sizes of the wire
	_ [288]byte = [unsafe.Sizeof(uringHeader{})]byte{}
	_ [24]byte  = [unsafe.Sizeof(uringCmdReq{})]byte{}
)
