# bash completion for dumpe2fs and e2mmpstatus.

_dumpe2fs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} head=
	COMPREPLY=()
	if [[ $prev == -o ]]; then
		if [[ $cur == *,* ]]; then head=${cur%,*},; cur=${cur##*,}; fi
		COMPREPLY=($(compgen -P "$head" -W "superblock= blocksize=" -- "$cur"))
		compopt -o nospace
	elif [[ $cur == --* ]]; then
		COMPREPLY=($(compgen -W "--help" -- "$cur"))
	elif [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "-b -f -g -h -i -m -o -x -V" -- "$cur"))
	elif [[ $cur == LABEL* || $cur == UUID* ]]; then
		COMPREPLY=($(compgen -W "LABEL= UUID=" -- "$cur"))
		compopt -o nospace
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}
complete -o filenames -F _dumpe2fs dumpe2fs e2mmpstatus
