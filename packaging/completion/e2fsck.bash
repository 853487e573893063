# bash completion for e2fsck and its other names.

_e2fsck() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= head=
	COMPREPLY=()
	case $prev in
	-B) words="1024 2048 4096 8192 16384 32768 65536" ;;
	-b) words="8193 32768" ;;
	-C) words="0 -1" ;;
	-E) words="ea_ver= journal_only discard nodiscard optimize_extents no_optimize_extents inode_count_fullmap
		no_inode_count_fullmap readahead_kb= bmap2extent fixes_only unshare_blocks fragcheck check_encoding problem_log= log_filename=" ;;
	-j|-l|-L|-z) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	esac
	if [ -n "$words" ]; then
		# The last item of a list.
		if [[ $cur == *,* ]]; then head=${cur%,*},; cur=${cur##*,}; fi
		COMPREPLY=($(compgen -P "$head" -W "$words" -- "$cur"))
		[[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
	elif [[ $cur == --* ]]; then
		COMPREPLY=($(compgen -W "--help --json --memory" -- "$cur"))
	elif [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "-a -b -B -c -cc -C -D -E -f -F -j -k -l -L -m -n -p -t -tt -v -V -y -z --json" -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}
complete -o filenames -F _e2fsck e2fsck fsck.ext2 fsck.ext3 fsck.ext4
