# Runs jobs in a guest, apart from what began them, and tells how they go. Runs
# as root, after lines that set id (of the job), and for Job: user, how (shell
# or argv), cwd, most (bytes of a stream that are kept), deadline (seconds, or
# empty), together (yes: both streams are one) and the function Variables, which
# exports the job's own; for Detached asked, too (yes: the agent was, before). A
# call of Job, Detached, Report, End or Jobs follows.
#
# A job has a directory of a tmpfs, with out, err, pid, status and late, and a
# control group of its own, so that whatever it started can be ended.
#
# A program costs an emulated guest tens of milliseconds, and a command is waited
# for: the shell does what it can by itself.

# shellcheck disable=SC2154,SC2016,SC2163,SC1091,SC2046,SC2086
unset SBXFS_JOB
base=/run/sbxfs-exec
group=/sys/fs/cgroup/sbxfs-exec
dir=$base/$id
piece=65536

# What a job writes may fill this and nothing else.
Base() {
  [ ! -e $base/.ready ] || return 0
  if mkdir $base 2>/dev/null; then
    mount -t tmpfs -o mode=700,size=25%,nosuid,nodev sbxfs-exec $base \
      >/dev/null 2>&1
    : >$base/.ready
  fi
  # Another job is just making it.
  tries=0
  until [ -e $base/.ready ] || [ $tries = 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
}

Refuse() {
  rm -rf "$dir" "$base/.of-$id"
  echo "refused $*"
  exit 0
}

# Sets uid, gid, home and shell.
WhoIs() {
  while IFS=: read -r name _ uid gid _ home shell; do
    [ "$name" != "$user" ] || return 0
  done </etc/passwd
  entry=$(getent passwd "$user" 2>/dev/null) || return
  IFS=: read -r name _ uid gid _ home shell <<ENTRY
$entry
ENTRY
}

# Who makes the file runs the job; who comes later tells how it goes.
Prepare() {
  Base
  set -C
  if ! { command : >"$base/.of-$id"; } 2>/dev/null; then
    [ -e "$base/.of-$id" ] || Refuse "nothing can be written to $base"
    Await 1
    Report 0 0
    exit
  fi
  set +C
  mkdir -p "$dir" "$group/$id" 2>/dev/null
  [ -d "$dir" ] || Refuse "nothing can be written to $base"
  WhoIs || Refuse "there is no user '$user' in the guest"
  : "${shell:=/bin/sh}"
  mkfifo "$dir/.out" "$dir/.err" || Refuse "$base takes no pipes"
}

# Bytes beyond the limit are read, and dropped, so that the job goes on.
Take() {
  trap '' XFSZ
  (
    ulimit -f "$((most / 512))"
    exec cat
  ) <"$1" >"$2" || {
    : >"$2.cut"
    exec cat <"$1" >/dev/null
  }
}

# Becomes the command, $@, as its user. Nothing of ours is a variable once
# theirs are: they may have the same names.
Become() {
  [ "$how" = argv ] || set -- "$shell" -c "$1"
  setsid=/usr/bin/setsid
  [ -x $setsid ] || setsid=$(command -v setsid) || setsid=
  if [ "$uid" = 0 ]; then
    path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  else
    path=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games
    # What root cannot enter its user may: a directory of the host's, say.
    if ! cd "${cwd:-$home}" 2>/dev/null; then
      set -- /bin/sh -c 'cd "$0" || exit 125; exec "$@"' "${cwd:-$home}" "$@"
    fi
    # BusyBox has one of that name which cannot do it.
    if [ -x /usr/bin/setpriv ] && [ ! -L /usr/bin/setpriv ]; then
      set -- /usr/bin/setpriv --reuid "$uid" --regid "$gid" --init-groups -- \
        "$@"
    else
      set -- "$(command -v su)" "$user" -s /bin/sh -c 'exec "$0" "$@"' "$@"
    fi
  fi
  [ -z "$setsid" ] || set -- "$setsid" "$@"
  cd "${cwd:-$home}" 2>/dev/null || [ "$uid" != 0 ] || {
    echo "sbxfs: there is no directory ${cwd:-$home}" >&2
    exit 125
  }
  [ ! -r /etc/default/locale ] || . /etc/default/locale
  [ ! -d "/run/user/$uid" ] || export XDG_RUNTIME_DIR="/run/user/$uid"
  export HOME="$home" USER="$user" LOGNAME="$user" SHELL="$shell" PATH="$path"
  [ -z "${LANG-}" ] || export LANG
  if [ -r /run/sbxfs/.environment ]; then
    while IFS= read -r _sbxfs; do
      case ${_sbxfs%%=*} in
        '' | [0-9]* | *[!A-Za-z0-9_]*) ;;
        *) export "$_sbxfs" ;;
      esac
    done </run/sbxfs/.environment
  fi
  unset _sbxfs
  Variables
  exec "$@"
}

Kill() {
  { echo 1 >"$group/$id/cgroup.kill"; } 2>/dev/null && return
  read -r leader <"$dir/leader" && kill -KILL "-$leader"
} 2>/dev/null

Deadline() {
  trap 'kill $sleeper; exit' TERM
  sleep "$deadline" &
  sleeper=$!
  wait $sleeper
  : >"$dir/late"
  kill -TERM "-$pid"
  sleep 2
  Kill
}

# $@ is the command. Its input is ours.
Run() {
  # Out of the group of what began it: a restarted agent must not end it.
  # This may be a subshell, and $$ another.
  read -r self _ </proc/self/stat
  { echo "$self" >$group/cgroup.procs; } 2>/dev/null
  echo "$self" >"$dir/pid"
  # Nothing may hold the streams of what began the job: it waits for their end.
  # A redirection of a function's call would: dash keeps the old ones for later.
  (
    exec </dev/null >/dev/null 2>&1
    Take "$dir/.out" "$dir/out"
  ) &
  takers=$!
  if [ "$together" = yes ]; then
    : >"$dir/err"
  else
    (
      exec </dev/null >/dev/null 2>&1
      Take "$dir/.err" "$dir/err"
    ) &
    takers="$takers $!"
  fi
  exec 3<&0
  (
    trap - HUP
    { echo 0 >"$group/$id/cgroup.procs"; } 2>/dev/null
    exec <&3 3<&- >"$dir/.out"
    if [ "$together" = yes ]; then exec 2>&1; else exec 2>"$dir/.err"; fi
    Become "$@"
  ) >/dev/null 2>&1 &
  pid=$!
  exec 3<&-
  echo $pid >"$dir/leader"
  if [ -n "$deadline" ]; then
    (
      exec </dev/null >/dev/null 2>&1
      Deadline
    ) &
    timer=$!
  fi
  wait $pid
  status=$?
  [ -z "$deadline" ] || kill $timer 2>/dev/null
  # What goes on in the background keeps the streams open: not waited for.
  if { [ ! -e "$group/$id/cgroup.procs" ] ||
    read -r _ <"$group/$id/cgroup.procs"; } 2>/dev/null; then
    trap : USR1
    { sleep 0.3 && kill -USR1 "$self"; } </dev/null >/dev/null 2>&1 &
  fi
  wait $takers
  echo $status >"$dir/status"
}

Piece() {
  size=$(($3 - $2))
  [ $size -gt 0 ] || return
  [ $size -lt $piece ] || size=$piece
  if [ "$2" = 0 ]; then
    head -c $size "$dir/$1"
  else
    tail -c +$(($2 + 1)) "$dir/$1" | head -c $size
  fi
}

# OUT ERR: how it goes, and what the streams have from there on: a line with
# the status (or runs, lost, gone), what else is known of it and the sizes of
# the streams; then the pieces.
Report() {
  if [ ! -e "$dir/pid" ]; then
    echo gone
    return
  fi
  status=runs
  notes=
  read -r runner <"$dir/pid"
  [ -d "/proc/$runner" ] || status=lost
  [ ! -s "$dir/status" ] || read -r status <"$dir/status"
  [ ! -e "$dir/late" ] || notes=late
  [ ! -e "$dir/out.cut" ] || notes=$notes,out
  [ ! -e "$dir/err.cut" ] || notes=$notes,err
  out=$1
  err=$2
  if [ -s "$dir/out" ] || [ -s "$dir/err" ]; then
    set -- $(cd "$dir" && stat -c %s out err 2>/dev/null)
  else
    set -- 0 0
  fi
  echo "$status ${notes:--} ${1:-0} ${2:-0}"
  Piece out "$out" "${1:-0}"
  Piece err "$err" "${2:-0}"
}

Job() {
  # The agent was so late that ssh was asked; the job may be over and removed.
  [ ! -e "$base/.by-ssh/$id" ] || exit 0
  umask 077
  Prepare
  umask 022
  Run "$@"
  Report 0 0
}

# By ssh, whose connection is no place for a job: its input is kept. The agent
# that did not answer may have begun it, or may yet.
Detached() {
  umask 077
  Base
  [ "$asked" = no ] || mkdir -p "$base/.by-ssh/$id" 2>/dev/null
  Prepare
  cat >"$dir/in"
  umask 022
  trap '' HUP
  (
    exec <"$dir/in" >/dev/null 2>&1
    Run "$@"
  ) &
  Await 1
  Report 0 0
}

# SECONDS: until it has ended, that long at most.
Await() {
  tries=$(($1 * 5))
  until [ -s "$dir/status" ] || [ $tries = 0 ]; do
    sleep 0.2
    tries=$((tries - 1))
  done
}

End() {
  Kill
  rm -rf "$dir" "$base/.of-$id"
  # A group is in use until the last process has been laid to rest.
  tries=0
  until [ ! -d "$group/$id" ] || rmdir "$group/$id" || [ $tries = 10 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
} 2>/dev/null
