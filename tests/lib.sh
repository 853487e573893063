# What the scripts of the cases share. Names of system tools mean the system's;
# ours are reached by "ours tool".

# skip reason: the case cannot run on this machine.
skip() {
	echo "$*"
	exit 77
}

# need tool...: skips unless the system has the tools.
need() {
	local t
	for t; do command -v "$t" >/dev/null || skip "no $t"; done
}

# ours tool arg...: runs our tool of that name, which a case needs.
ours() {
	local t=$BIN/$1
	[ -x "$t" ] || skip "no bin/$1 yet"
	shift
	"$t" "$@"
}

# status command...: runs it and prints the exit status on a line.
status() {
	"$@"
	echo "exit status $?"
}

# unchanged file command...: runs the command and says if the file changed.
unchanged() {
	local file=$1 before
	shift
	before=$(sha256sum <"$file")
	"$@"
	if [ "$before" = "$(sha256sum <"$file")" ]; then echo "unchanged"; else echo "CHANGED"; fi
}

# mkimage file size mke2fs-argument...: the same image each time.
mkimage() {
	local file=$1 size=$2
	shift 2
	need mke2fs
	rm -f "$file"
	E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -F \
		-U 01234567-89ab-cdef-0123-456789abcdef \
		-E hash_seed=76543210-ba98-fedc-3210-0123456789ab "$@" "$file" "$size" ||
		exit 1
}

# canmount: skips where no one may mount by FUSE.
canmount() {
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	[ "$(id -u)" = 0 ] || need fusermount3
}

# fuseumount dir: unmounts and waits for the server to finish.
fuseumount() {
	if [ "$(id -u)" = 0 ]; then umount "$1"; else fusermount3 -u "$1"; fi
}

# fsck image: what C e2fsck thinks of it.
fsck() {
	need e2fsck
	if e2fsck -fn "$1" >fsck.out 2>&1; then echo "clean"; else cat fsck.out; fi
}
