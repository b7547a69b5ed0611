# Completion of sbxfs for bash. tests/unit/completions_test.cc compares the
# names with the program's own.

_sbxfs() {
  local options='allow_other allow_root all async atime auto_unmount cold
    context= debug defcontext= dirsync disk_pool= exec fscontext= gid= group=
    hosts= insecure_tcp log= loglevel= max_read= noatime nodev noexec nosuid
    pool= ro rootcontext= sloppy ssh_config= start start_timeout= stop_timeout=
    sync trash= user_disk= user_jobs= user_memory= user_ports=
    user_sandboxes='
  local switches='-d -f -h -o -V --check --connect --debug --help
    --only-mount --status --version'
  local uris='qemu:///session qemu:///system qemu+ssh:// lima+ssh://
    test:///default'
  # Of the line, since bash parts words at = and : too.
  local line=${COMP_LINE:0:COMP_POINT}
  local word=${line##*[[:space:]]}
  local rest=${line%"$word"}
  rest=${rest%"${rest##*[![:space:]]}"}
  local before=${rest##*[[:space:]]}
  local done='' last=$word name='' i
  if [[ $before == -o || $word == -o?* ]]; then
    [[ $before == -o ]] || done=-o last=${word#-o}
    if [[ $last == *,* ]]; then
      done+=${last%,*}, last=${last##*,}
    fi
    if [[ $last == *=* ]]; then
      name=${last%%=*} last=${last#*=} done+=$name=
    else
      name=-o
    fi
    # After an option another may follow, after its = a value.
    compopt -o nospace 2> /dev/null
  elif [[ $word != -* ]]; then
    compopt -o filenames 2> /dev/null
  fi
  mapfile -t COMPREPLY < <(
    case $name in
      -o) compgen -W "$options" -- "$last" ;;
      loglevel)
        compgen -W 'trace debug info warning error critical off' -- "$last" ;;
      log) compgen -W 'stderr syslog journal' -- "$last"; compgen -f -- "$last" ;;
      hosts | ssh_config) compgen -f -- "$last" ;;
      gid | group) compgen -g -- "$last" ;;
      ?*) ;;
      *)
        case $word in
          -*) compgen -W "$switches" -- "$word" ;;
          *) compgen -W "$uris" -- "$word"; compgen -d -- "$word" ;;
        esac ;;
    esac)

  # Readline replaces what follows the last of its word breaks alone.
  local kept=''
  [[ $COMP_WORDBREAKS != *[=:]* ]] || kept=${word%"${word##*[=:]}"}
  for i in "${!COMPREPLY[@]}"; do
    COMPREPLY[i]=$done${COMPREPLY[i]}
    COMPREPLY[i]=${COMPREPLY[i]#"$kept"}
  done
}

complete -F _sbxfs sbxfs
