# Long steps that can be watched and stopped, and packages: what quickstart and
# tests/run share. Sourced, with in
#   me    the caller's name, for its messages
#   log   the file that takes a step's output

show='tail -n 30'
patient=
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

fail() { printf '%s: %s\n' "$me" "$*" >&2; exit 1; }

# How far a step is, from its own lines: `[ 45%] …`, `[2/3] …`, or how many
# tests have passed; else a dot.
progress() {
  now=$(sed -n 's|.*\[ *\([0-9]*%\)\].*|\1|p
    s|.*\[\([0-9]*/[0-9]*\)\].*|\1|p' "$log" | tail -n 1)
  [ -n "$now" ] || now=$(grep -c '\[       OK \]' "$log" | grep -vx 0 || :)
  if [ "$now" = "$shown" ]; then printf .; else printf ' %s' "$now"; fi
  shown=$now
}

# Ends the running step with its children. dpkg in the middle of its work is
# better left to come to its end.
interrupted() {
  trap '' INT TERM HUP
  if [ -n "$patient" ]; then
    printf '\n%s: ends as soon as dpkg is done' "$me"
  else
    # Not kill(1), which a small system does not have.
    $as sh -c 'kill -s TERM -- "$@"' sh "-$(cat "$log.pid")" || :
  fi
  wait "$job" 2> /dev/null || :
  rm -f "$log.pid"
  printf '\n%s: ended by a signal; the same command goes on from here\n' "$me"
  exit 130
}

# Runs a command, in a session of its own, while showing that it goes on. Its
# output is shown, by $show, only when it fails; its status is the step's.
step() {  # WHAT [sudo] COMMAND [ARG...]
  printf '%s ' "$1"; shift
  shown='' seconds=0 as=
  if [ "$1" = sudo ]; then
    as=sudo; shift
    sudo true  # asks for the password before the dots begin
  fi
  rm -f "$log.pid"
  # A shell's background commands ignore SIGINT; tests need to feel it.
  $as setsid -w sh -c 'echo $$ > "$0"; exec "$@"' "$log.pid" \
    env --default-signal=INT,QUIT "$@" > "$log" 2>&1 < /dev/null &
  job=$!
  trap interrupted INT TERM HUP
  while [ -e "/proc/$job" ]; do
    sleep 1
    seconds=$((seconds + 1))
    [ $((seconds % 5)) -ne 0 ] || progress
  done
  trap - INT TERM HUP
  status=0
  wait "$job" || status=$?
  rm -f "$log.pid"
  if [ "$status" = 0 ]; then
    printf ' done (%s s)\n' "$seconds"
  else
    printf ' failed:\n' >&2
    $show "$log" >&2
  fi
  return "$status"
}

# Stops where a directory's file system has no room.
need_space() {  # MEGABYTES DIRECTORY...
  megabytes=$1; shift
  for directory; do
    free=$(df --output=avail -BM "$directory" | tail -n 1 | tr -dc 0-9)
    [ "$free" -ge "$megabytes" ] || fail "Cannot begin: $directory has" \
      "$free MB free, and $megabytes MB are needed; make room there"
  done
}

# Of the packages those that are not installed.
missing_of() {  # PACKAGE...
  for package; do
    case $(dpkg-query -W -f '${Status}' "$package" 2> /dev/null) in
      *' installed') ;;
      *) echo "$package" ;;
    esac
  done
}

apt_step() {  # WHAT ARGUMENT...
  what=$1; shift
  step "$what" $sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -q \
    -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" || {
    sed -n 's/^[EW]: /  &/p' "$log.lists" >&2
    fail 'Cannot install the packages: apt-get failed, see the lines above;' \
      'mend that and run the same command again'
  }
}

install_packages() {  # PACKAGE...
  command -v apt-get > /dev/null ||
    fail "Cannot install packages: this is no Debian; install by hand what" \
      "these stand for, and build as README.md says: $*"
  [ -z "$sudo" ] || sudo true || fail "Cannot install packages as" \
    "'$(id -un)': sudo refuses; as root: apt-get install $*"
  # Of lists that cannot be fetched some may not be needed.
  step 'updating the package lists' $sudo apt-get -q update || :
  mv "$log" "$log.lists"
  apt_step "downloading $# packages and what they need" --download-only "$@"
  patient=1
  apt_step 'installing them' "$@"
  patient=
  rm -f "$log.lists"
}

# The name, in that directory, of an image that is made as of now; what was made
# otherwise before is removed.
cached_image() {  # DIRECTORY
  made=$(find backend/guest/sbxfs-build-image backend/guest/overlay \
    backend/guest/packages backend/guest/masked-* -type f | sort |
    xargs cat | sha256sum | cut -c1-12)
  find "$1" -name 'debian-12*.qcow2' ! -name "debian-12-$made.qcow2" -delete \
    2> /dev/null || :
  echo "$1/debian-12-$made.qcow2"
}
make_image() {  # FILE
  what='making a Debian guest image (about two minutes)'
  # A user needs a range of ids for it (/etc/subuid), and to be let use them.
  # Both questions: where user namespaces are refused, a container say, the
  # second leaves a process behind that waits for ever (util-linux 2.38).
  if [ -z "$sudo" ] || { unshare --map-root-user true &&
    unshare --map-root-user --map-auto true; } 2> /dev/null
  then
    step "$what" backend/guest/sbxfs-build-image --output "$1"
  else
    step "$what" sudo backend/guest/sbxfs-build-image --output "$1"
    sudo chown "$(id -u):$(id -g)" "$1"
  fi
}
