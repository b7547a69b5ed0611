# Completion of sandbox for bash: its switches and the sandboxes there are, then
# a directory or a command.

_sandbox() {
  local word=${COMP_WORDS[COMP_CWORD]}
  case $COMP_CWORD in
    1) mapfile -t COMPREPLY < <(compgen -W "-h -l $(
      sandbox -l 2> /dev/null | awk 'NR > 1 { print $1 }')" -- "$word") ;;
    2) compopt -o filenames 2> /dev/null
      mapfile -t COMPREPLY < <({ compgen -d -- "$word"
        compgen -c -- "$word"; } | sort -u) ;;
  esac
}

complete -o default -F _sandbox sandbox
