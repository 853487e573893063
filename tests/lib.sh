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
	truncate -s "$size" "$file" # or mke2fs reports that it made the file
	E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -F -t ext4 -T default -b 4096 \
		-U 01234567-89ab-cdef-0123-456789abcdef \
		-E hash_seed=76543210-ba98-fedc-3210-0123456789ab "$@" "$file" "$size" ||
		exit 1
}

# canmount: skips where no one may mount by FUSE, or we cannot yet.
canmount() {
	[ -x "$BIN/fuse2fs" ] || skip "no bin/fuse2fs yet"
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

# refused about command...: the command must fail and say why in one line of
# standard error that has the (extended) expression about in it.
refused() {
	local about=$1 out code
	shift
	out=$("$@" 2>&1 >/dev/null)
	code=$?
	[ $code != 77 ] || skip "$out"
	if [ $code = 0 ]; then
		echo "not refused: $*"
	elif [ "$(printf '%s\n' "$out" | wc -l)" != 1 ]; then
		printf 'refused, but not in one line:\n%s\n' "$out"
	elif ! printf '%s\n' "$out" | grep -qiE "$about"; then
		printf 'refused, but not about %s: %s\n' "$about" "$out"
	else
		echo "refused, exit status $code"
	fi
}

# mounted dir: whether something is mounted there.
mounted() {
	if grep -q " $PWD/$1 " /proc/self/mounts; then echo "mounted"; else echo "not mounted"; fi
}

# patch file offset hex...: overwrites bytes.
patch() {
	local file=$1 off=$2 b
	shift 2
	for b; do
		printf "\\x$b" | dd of="$file" bs=1 seek="$off" conv=notrunc status=none
		off=$((off + 1))
	done
}
