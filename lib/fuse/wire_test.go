package fuse

import (
	"testing"
	"unsafe"
)

// The sizes are those of the kernel's structs, as a C compiler lays them out.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"fuse_in_header", unsafe.Sizeof(InHeader{}), 40},
		{"fuse_out_header", unsafe.Sizeof(OutHeader{}), 16},
		{"fuse_attr", unsafe.Sizeof(Attr{}), 88},
		{"fuse_statx", unsafe.Sizeof(Statx{}), 256},
		{"fuse_kstatfs", unsafe.Sizeof(Kstatfs{}), 80},
		{"fuse_file_lock", unsafe.Sizeof(FileLock{}), 24},
		{"fuse_entry_out", unsafe.Sizeof(EntryOut{}), 128},
		{"fuse_forget_in", unsafe.Sizeof(ForgetIn{}), 8},
		{"fuse_forget_one", unsafe.Sizeof(ForgetOne{}), 16},
		{"fuse_batch_forget_in", unsafe.Sizeof(BatchForgetIn{}), 8},
		{"fuse_getattr_in", unsafe.Sizeof(GetattrIn{}), 16},
		{"fuse_attr_out", unsafe.Sizeof(AttrOut{}), 104},
		{"fuse_statx_in", unsafe.Sizeof(StatxIn{}), 24},
		{"fuse_statx_out", unsafe.Sizeof(StatxOut{}), 288},
		{"fuse_mknod_in", unsafe.Sizeof(MknodIn{}), 16},
		{"fuse_mkdir_in", unsafe.Sizeof(MkdirIn{}), 8},
		{"fuse_rename_in", unsafe.Sizeof(RenameIn{}), 8},
		{"fuse_rename2_in", unsafe.Sizeof(Rename2In{}), 16},
		{"fuse_link_in", unsafe.Sizeof(LinkIn{}), 8},
		{"fuse_setattr_in", unsafe.Sizeof(SetattrIn{}), 88},
		{"fuse_open_in", unsafe.Sizeof(OpenIn{}), 8},
		{"fuse_create_in", unsafe.Sizeof(CreateIn{}), 16},
		{"fuse_open_out", unsafe.Sizeof(OpenOut{}), 16},
		{"create answer", unsafe.Sizeof(CreateOut{}), 144},
		{"fuse_release_in", unsafe.Sizeof(ReleaseIn{}), 24},
		{"fuse_flush_in", unsafe.Sizeof(FlushIn{}), 24},
		{"fuse_read_in", unsafe.Sizeof(ReadIn{}), 40},
		{"fuse_write_in", unsafe.Sizeof(WriteIn{}), 40},
		{"fuse_write_out", unsafe.Sizeof(WriteOut{}), 8},
		{"fuse_statfs_out", unsafe.Sizeof(StatfsOut{}), 80},
		{"fuse_fsync_in", unsafe.Sizeof(FsyncIn{}), 16},
		{"fuse_setxattr_in", unsafe.Sizeof(SetxattrIn{}), 16},
		{"fuse_getxattr_in", unsafe.Sizeof(GetxattrIn{}), 8},
		{"fuse_getxattr_out", unsafe.Sizeof(GetxattrOut{}), 8},
		{"fuse_lk_in", unsafe.Sizeof(LkIn{}), 48},
		{"fuse_lk_out", unsafe.Sizeof(LkOut{}), 24},
		{"fuse_access_in", unsafe.Sizeof(AccessIn{}), 8},
		{"fuse_init_in", unsafe.Sizeof(InitIn{}), 64},
		{"fuse_init_out", unsafe.Sizeof(InitOut{}), 64},
		{"fuse_interrupt_in", unsafe.Sizeof(InterruptIn{}), 8},
		{"fuse_bmap_in", unsafe.Sizeof(BmapIn{}), 16},
		{"fuse_bmap_out", unsafe.Sizeof(BmapOut{}), 8},
		{"fuse_ioctl_in", unsafe.Sizeof(IoctlIn{}), 32},
		{"fuse_ioctl_out", unsafe.Sizeof(IoctlOut{}), 16},
		{"fuse_poll_in", unsafe.Sizeof(PollIn{}), 24},
		{"fuse_poll_out", unsafe.Sizeof(PollOut{}), 8},
		{"fuse_fallocate_in", unsafe.Sizeof(FallocateIn{}), 32},
		{"fuse_lseek_in", unsafe.Sizeof(LseekIn{}), 24},
		{"fuse_lseek_out", unsafe.Sizeof(LseekOut{}), 8},
		{"fuse_copy_file_range_in", unsafe.Sizeof(CopyFileRangeIn{}), 56},
		{"fuse_copy_file_range_out", unsafe.Sizeof(CopyFileRangeOut{}), 8},
		{"fuse_setupmapping_in", unsafe.Sizeof(SetupmappingIn{}), 40},
		{"fuse_removemapping_in", unsafe.Sizeof(RemovemappingIn{}), 4},
		{"fuse_removemapping_one", unsafe.Sizeof(RemovemappingOne{}), 16},
		{"fuse_syncfs_in", unsafe.Sizeof(SyncfsIn{}), 8},
		{"fuse_dirent", unsafe.Sizeof(Dirent{}), 24},
		{"fuse_direntplus", unsafe.Sizeof(Direntplus{}), 152},
		{"fuse_ext_header", unsafe.Sizeof(ExtHeader{}), 8},
		{"fuse_notify_poll_wakeup_out", unsafe.Sizeof(NotifyPollWakeupOut{}), 8},
		{"fuse_notify_inval_inode_out", unsafe.Sizeof(NotifyInvalInodeOut{}), 24},
		{"fuse_notify_inval_entry_out", unsafe.Sizeof(NotifyInvalEntryOut{}), 16},
		{"fuse_notify_delete_out", unsafe.Sizeof(NotifyDeleteOut{}), 24},
		{"fuse_notify_store_out", unsafe.Sizeof(NotifyStoreOut{}), 24},
		{"fuse_notify_retrieve_out", unsafe.Sizeof(NotifyRetrieveOut{}), 32},
		{"fuse_notify_retrieve_in", unsafe.Sizeof(NotifyRetrieveIn{}), 40},
		{"fuse_notify_prune_out", unsafe.Sizeof(NotifyPruneOut{}), 16},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
	// Fields behind padding, where a size would not tell.
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"statx.ino", unsafe.Offsetof(Statx{}.Ino), 32},
		{"statx.atime", unsafe.Offsetof(Statx{}.Atime), 64},
		{"statx.rdev_major", unsafe.Offsetof(Statx{}.RdevMajor), 128},
		{"init_out.max_pages", unsafe.Offsetof(InitOut{}.MaxPages), 28},
		{"init_out.flags2", unsafe.Offsetof(InitOut{}.Flags2), 32},
		{"init_out.request_timeout", unsafe.Offsetof(InitOut{}.RequestTimeout), 40},
		{"in_header.total_extlen", unsafe.Offsetof(InHeader{}.TotalExtlen), 36},
		{"setattr_in.mode", unsafe.Offsetof(SetattrIn{}.Mode), 68},
		{"attr.flags", unsafe.Offsetof(Attr{}.Flags), 84},
	} {
		if c.got != c.want {
			t.Errorf("%s: at %d, want %d", c.name, c.got, c.want)
		}
	}
}

func TestOpString(t *testing.T) {
	for op, want := range map[Op]string{OpLookup: "LOOKUP", OpCopyFileRange64: "COPY_FILE_RANGE_64", 7: "op 7", OpIomapBegin: "IOMAP_BEGIN", 4088: "op 4088"} {
		if got := op.String(); got != want {
			t.Errorf("%d: %q, want %q", uint32(op), got, want)
		}
	}
}

func TestAppendDirent(t *testing.T) {
	buf := make([]byte, 0, 64)
	buf, ok := AppendDirent(buf, 12, 1, 4, []byte("abc"))
	if !ok || len(buf) != 32 {
		t.Fatalf("first: %v, %d bytes", ok, len(buf))
	}
	buf, ok = AppendDirent(buf, 13, 2, 8, []byte("12345678"))
	if !ok || len(buf) != 64 {
		t.Fatalf("second: %v, %d bytes", ok, len(buf))
	}
	if buf, ok = AppendDirent(buf, 14, 3, 8, nil); ok || len(buf) != 64 {
		t.Fatalf("third, into no room: %v, %d bytes", ok, len(buf))
	}
	d := (*Dirent)(unsafe.Pointer(&buf[32]))
	if *d != (Dirent{Ino: 13, Off: 2, Namelen: 8, Type: 8}) || string(buf[56:]) != "12345678" {
		t.Fatalf("second reads %+v %q", *d, buf[56:])
	}
	buf, e := AppendDirentplus(make([]byte, 0, 160), 9, 1, 4, []byte("x"))
	if e == nil || len(buf) != 160 || *e != (EntryOut{}) {
		t.Fatalf("plus: %d bytes, %v", len(buf), e)
	}
}
