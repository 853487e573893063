# bash completion for debugfs and rdebugfs.

_debugfs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	case $prev in
	-b) COMPREPLY=($(compgen -W "1024 2048 4096 8192 16384 32768 65536" -- "$cur")); return ;;
	-f|-z|-d) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	-s) return ;;
	-R)
		# Names of commands, which the first word of a request is one of.
		COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" -R help 2>/dev/null | sed -n 's/^  \([a-z?][a-z0-9_?, ]*\).*/\1/p' | sed 's/  .*//; s/,//g')" -- "${cur#[\"\']}"))
		return ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "-w -n -c -i -d -D -b -s -R -f -z -V --json --keep-going --help" -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}
complete -o filenames -F _debugfs debugfs rdebugfs
