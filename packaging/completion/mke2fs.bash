# bash completion for mke2fs and its other names.

_mke2fs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= head=
	COMPREPLY=()
	# Bash splits --option=value in three where = breaks words.
	if [[ $cur == = && $prev == --* ]]; then
		cur=
	elif [[ $prev == = && COMP_CWORD -ge 2 ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $prev in
	-t) words="ext2 ext3 ext4" ;;
	-T) words="default floppy small big huge news largefile largefile4" ;;
	-b) words="1024 2048 4096 8192 16384 32768 65536" ;;
	-I) words="128 256 512 1024" ;;
	-e) words="continue remount-ro panic" ;;
	-o) words="Linux Hurd Masix FreeBSD Lites" ;;
	-U) words="clear random time" ;;
	-r) words="0 1" ;;
	-O) words="none has_journal ext_attr resize_inode dir_index sparse_super2 fast_commit stable_inodes orphan_file
		filetype journal_dev meta_bg extent 64bit mmp flex_bg ea_inode metadata_csum_seed large_dir inline_data
		encrypt casefold sparse_super large_file huge_file uninit_bg dir_nlink extra_isize quota bigalloc
		metadata_csum project verity" ;;
	-E|-R) words="offset= stride= stripe_width= resize= lazy_itable_init= lazy_journal_init= assume_storage_prezeroed=
		discard nodiscard packed_meta_blocks= num_backup_sb= desc_size= hash_seed= root_owner= root_perms=
		root_selinux= quotatype= mmp_update_interval= encoding= encoding_flags= orphan_file_size= revision= test_fs
		no_copy_xattrs" ;;
	-J) words="size= fast_commit_size= location= device= v1_superblock" ;;
	--size) words="auto" ;;
	--platform) words="linux/386 linux/amd64 linux/arm/v7 linux/arm64 linux/ppc64le linux/riscv64 linux/s390x" ;;
	--help) words="usage features extended journal fill size" ;;
	-C|-g|-G|-i|-L|-m|-N|--free|--max|--owner|--map-uid|--map-gid|--exclude|--ref) return ;;
	-M|-d|-l|-z|--layer|--device-table|--exclude-from|--file-contexts) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	esac
	if [ -n "$words" ]; then
		# The last item of a list, with a ^ kept in front of a feature.
		if [[ $cur == *,* ]]; then head=${cur%,*},; cur=${cur##*,}; fi
		if [[ $prev == -O && $cur == ^* ]]; then head+=^; cur=${cur#^}; fi
		COMPREPLY=($(compgen -P "$head" -W "$words" -- "$cur"))
		[[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
	elif [[ $cur == --* ]]; then
		COMPREPLY=($(compgen -W "--size --free --max --shrink --layer --ref --platform --owner --map-uid --map-gid
			--device-table --exclude --exclude-from --file-contexts --reproducible --help" -- "$cur"))
	elif [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "-b -c -C -D -e -E -F -g -G -i -I -j -J -l -L -m -M -n -N -o -O -q -r -S -t -T -U -v -V -z" -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}
complete -o filenames -F _mke2fs mke2fs mkfs.ext2 mkfs.ext3 mkfs.ext4
