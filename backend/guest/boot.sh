# usage: sh boot.sh early | late
#
# Runs in the guest at every boot, from the seed's disk: `early` by cloud-init's
# bootcmd, before users log in (at the first boot before there are any), `late`
# by a per-boot script, as the last thing of a boot. What differs from sandbox
# to sandbox lies beside it on the disk; `plan` has the steps. A step that fails
# stops nothing: how it ended is written down, and what it said.

MNT=/mnt/lima-cidata
STATE=/var/lib/sbxfs

# Makes $2 a copy of $1, or takes it away where $1 is empty or not there; true
# when that changed something.
Put() {
  if [ -s "$1" ]; then
    ! cmp -s "$1" "$2" || return 1
    mkdir -p "${2%/*}" && cp "$1" "$2" && chmod 644 "$2"
  else
    [ -e "$2" ] || return 1
    rm -f "$2"
  fi
}

# The lines of $1 at the end of $2, between marks; what is around them stays.
Block() {
  old=$(cat "$2" 2>/dev/null)
  new=$([ -z "$old" ] ||
      printf '%s\n' "$old" | sed '/^# sbxfs: begin/,/^# sbxfs: end/d'
    [ ! -s "$1" ] || {
      echo '# sbxfs: begin; made anew at each boot'
      cat "$1"
      echo '# sbxfs: end'
    })
  [ "$new" = "$old" ] || printf '%s\n' "$new" >"$2"
}

# --- What config.yaml says of the guest itself ---

# A disk that was another sandbox's, or is a copy of one, has that one's machine
# id. cloud-init knows the instance as new then, once. One that this boot made
# is kept: the journal is already written under it.
MachineId() {
  [ ! -e "$STATE/instance" ] || [ "$(cat "$STATE/instance")" != "$1" ] ||
    return 0
  mkdir -p "$STATE"
  echo "$1" >"$STATE/instance"
  [ -s /etc/machine-id ] &&
    command -v systemd-machine-id-setup >/dev/null || return 0
  [ -z "$(find /etc/machine-id -newermt "$(uptime -s)")" ] || return 0
  rm -f /etc/machine-id
  [ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
  systemd-machine-id-setup
}

Hosts() {
  # cloud-init adds the guest's name and would leave the one from before a
  # rename, which may be another sandbox's by now.
  sed -i -E '/^127\.0\.[01]\.1[[:space:]]+lima-/d' /etc/hosts
  grep -qs localhost /etc/hosts || echo '127.0.0.1 localhost' >>/etc/hosts
  Block "$MNT/hosts" /etc/hosts
}

Environment() {
  Block "$MNT/etc_environment" /etc/environment
  Put "$MNT/environment" "$STATE/environment"
  Put "$MNT/env.sh" "$STATE/env.sh"
  Put "$MNT/profile.sh" /etc/profile.d/sbxfs.sh
  [ ! -d /etc/apt/apt.conf.d ] || Put "$MNT/apt.conf" /etc/apt/apt.conf.d/95sbxfs
  # What sets variables for a command given to ssh is ~/.ssh/environment: the
  # shell that runs it reads nothing, and PAM cuts values at a number sign.
  if [ -d /etc/ssh/sshd_config.d ] &&
    Put "$MNT/sshd_config" /etc/ssh/sshd_config.d/60-sbxfs.conf; then
    for unit in ssh sshd; do
      ! systemctl -q is-active $unit || systemctl reload $unit
    done
  fi
}

Dns() {
  if command -v resolvectl >/dev/null; then
    ! Put "$MNT/resolved.conf" /etc/systemd/resolved.conf.d/60-sbxfs.conf ||
      systemctl try-restart systemd-resolved
  elif [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ]; then
    if [ -s "$MNT/resolv.conf" ]; then
      cp "$MNT/resolv.conf" /etc/resolv.conf
    fi
  fi
}

Timezone() {
  [ -n "$1" ] || return 0
  if [ ! -e "/usr/share/zoneinfo/$1" ]; then
    echo "there is no time zone $1 in this guest"
    return 1
  fi
  [ "$(readlink /etc/localtime)" != "/usr/share/zoneinfo/$1" ] || return 0
  ln -sf "/usr/share/zoneinfo/$1" /etc/localtime
  [ ! -e /etc/timezone ] || echo "$1" >/etc/timezone
}

# $1: whether the distribution's own are to go.
CaCerts() {
  changed=
  if command -v update-ca-certificates >/dev/null; then
    dir=/usr/local/share/ca-certificates
    update='update-ca-certificates'
  elif command -v update-ca-trust >/dev/null; then
    dir=/etc/pki/ca-trust/source/anchors
    update='update-ca-trust'
  else
    echo 'this guest has neither update-ca-certificates nor update-ca-trust'
    return 1
  fi
  for file in "$MNT"/ca-*.crt $dir/sbxfs-ca-*.crt; do
    name=${file##*/}
    name=${name#sbxfs-}
    ! Put "$MNT/$name" "$dir/sbxfs-$name" || changed=1
  done
  # The way that ca-certificates has for it.
  list=/etc/ca-certificates.conf
  if [ "$1" = yes ] && grep -qs '^[^#!]' $list; then
    sed -i 's/^[^#!]/!&/' $list
    : >$STATE/ca-removed
    changed=1
  elif [ "$1" = no ] && [ -e $STATE/ca-removed ]; then
    sed -i 's/^!//' $list
    rm -f $STATE/ca-removed
    changed=1
  fi
  [ -z "$changed" ] || $update
}

# Once for as long as it is wanted.
UpgradePackages() {
  [ ! -e $STATE/upgraded ] || return 0
  if command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update && apt-get -y -o Dpkg::Options::=--force-confold dist-upgrade
  elif command -v dnf >/dev/null; then
    dnf -y upgrade
  elif command -v zypper >/dev/null; then
    zypper -n update
  elif command -v apk >/dev/null; then
    apk update && apk upgrade
  elif command -v pacman >/dev/null; then
    pacman -Syu --noconfirm
  else
    echo 'this guest has no package manager that sbxfs knows'
    return 1
  fi && : >$STATE/upgraded
}

# --- Additional disks ---

# Whether nothing was ever written to it, as far as can be seen: what looks like
# anything else is never formatted.
IsBlank() {
  [ "$(head -c 1048576 "$1" | wc -c)" = 1048576 ] &&
    [ "$(head -c 1048576 "$1" | tr -d '\0' | wc -c)" = 0 ] &&
    ! blkid -p "$1" >/dev/null 2>&1
}

# The device whose serial number is $serial.
FindDisk() {
  device=
  for file in /sys/block/*/serial; do
    [ "$(cat "$file")" != "$serial" ] || device=${file%/serial}
  done
  [ -n "$device" ]
}

# NAME SERIAL FORMAT TYPE [ARG...]: is at /mnt/lima-NAME afterwards.
MountDisk() {
  where=/mnt/lima-$1 label=lima-$1 serial=$2 format=$3 type=$4
  shift 4
  ! mountpoint -q "$where" || return 0
  # One that is plugged into a running guest may be a moment late.
  tries=50
  until FindDisk || [ ! -e /run/sbxfs.warm ] || [ $tries = 0 ]; do
    sleep 0.2
    tries=$((tries - 1))
  done
  if [ -z "$device" ]; then
    echo "this guest has no disk whose serial number is $serial"
    return 1
  fi
  device=/dev/${device##*/}
  # One that Lima made has a partition.
  [ ! -b "${device}1" ] || device=${device}1
  if IsBlank "$device"; then
    if [ "$format" = no ]; then
      echo "$device is blank, and format is false"
      return
    fi
    # As long as the file system takes it.
    case $type in
      xfs) label=$(echo "$label" | cut -c1-12) ;;
      *) label=$(echo "$label" | cut -c1-16) ;;
    esac
    # Its progress is written for a terminal.
    case $type in
      ext*) set -- -q "$@" ;;
    esac
    "mkfs.$type" -L "$label" "$@" "$device" || return
  fi
  mkdir -p "$where"
  if ! mount "$device" "$where"; then
    rmdir "$where"
    # What is in it is then the user's own affair.
    [ "$format" = no ]
    return
  fi
  # It may have grown.
  case $(awk -v at="$where" '$2 == at { print $3 }' /proc/mounts) in
    ext*) resize2fs "$device" ;;
    xfs) xfs_growfs "$where" ;;
    btrfs) btrfs filesystem resize max "$where" ;;
  esac
  return 0
}

# --- The way out of a guest that has an egress list ---

# The proxy comes with an ssh, long before the scripts of a boot; those of a
# guest that goes on from a template would run before it.
AwaitProxy() {
  tries=150
  until [ ! -e /run/sbxfs.warm ] || [ $tries = 0 ] ||
    grep -q ': 0100007F:0C38 00000000:0000 0A' /proc/net/tcp; do
    sleep 0.2
    tries=$((tries - 1))
  done
}

# --- Steps: SEQUENCE (001, 002, …), then what it is ---

Begin() {
  echo "run $1 $2" >>$STATE/state
  log=$STATE/log/$1
  echo "== $(date -u +%Y-%m-%dT%H:%M:%SZ) $2" >"$log"
}

End() {
  echo "== exit status $2" >>"$log"
  echo "end $1 $2" >>$STATE/state
}

# Its command is the rest.
Step() {
  sequence=$1
  Begin "$1" "$2"
  shift 2
  ("$@") >>"$log" 2>&1 </dev/null
  End "$sequence" $?
}

# MODE NUMBER: a script of the disk's. One without #! is sh's.
Script() {
  Step "$1" "provision script $3 (mode $2)" RunScript "$1" "$2"
}

RunScript() {
  file=$STATE/step/$1
  Known "$MNT/step-$1" >"$file" && chmod 755 "$file" || exit
  if [ "$2" = user ]; then
    AsUser "$file"
  else
    cd /
    "$file"
  fi
  status=$?
  rm -f "$file"
  return $status
}

# A login shell of the user's, so that its profile holds, with the session that
# `systemctl --user` asks for where the guest has such.
AsUser() {
  cd "$LIMA_CIDATA_HOME" || exit
  export HOME="$LIMA_CIDATA_HOME" SHELL="$LIMA_CIDATA_SHELL" \
    USER="$LIMA_CIDATA_USER" LOGNAME="$LIMA_CIDATA_USER"
  # Kept for this and the next boots; started at once, and waited for. A guest
  # without pam_systemd has no such sessions.
  if { loginctl enable-linger "$LIMA_CIDATA_USER" &&
       systemctl start "user@$LIMA_CIDATA_UID.service"; } >/dev/null 2>&1; then
    export XDG_RUNTIME_DIR="/run/user/$LIMA_CIDATA_UID"
  fi
  runuser -u "$LIMA_CIDATA_USER" -- "$SHELL" -lc "$1"
}

# NUMBER PATH OWNER PERMISSIONS OVERWRITE: a file of the disk's.
Data() {
  Step "$1" "provision script $2 (mode data, $3)" WriteData "$1" "$3" "$4" \
    "$5" "$6"
}

WriteData() {
  if [ -e "$2" ] && [ "$5" = no ]; then
    echo "$2 is there; kept"
    return
  fi
  mkdir -p "$(dirname "$2")" || return
  # Nobody reads it before it is whose it is to be.
  umask 077
  { [ -e "$2" ] || : >"$2"; } && { [ -z "$3" ] || chown "$3" "$2"; } &&
    { [ -z "$4" ] || chmod "$4" "$2"; } && Known "$MNT/step-$1" >"$2"
}

# --- The two parts ---

Prepare() {
  mkdir -p $STATE/log $STATE/step /var/lib/cloud/scripts/per-boot
  rm -f $STATE/log/*
  read -r boot </proc/sys/kernel/random/boot_id
  echo "boot $boot" >$STATE/state
  echo "steps $STEPS" >>$STATE/state
  # Debian's useradd gives /bin/sh where its adduser, and people, take bash.
  [ ! -x /bin/bash ] || [ ! -e /etc/default/useradd ] ||
    sed -i 's,^SHELL=/bin/sh$,SHELL=/bin/bash,' /etc/default/useradd
  cat >/var/lib/cloud/scripts/per-boot/00-sbxfs <<'STUB'
#!/bin/sh
# Made by sbxfs at each boot.
d=/mnt/lima-cidata
mountpoint -q $d || mount -o ro LABEL=cidata $d || exit 0
sh $d/boot.sh late
STUB
  chmod 755 /var/lib/cloud/scripts/per-boot/00-sbxfs
}

# Who the user is, which only the guest knows.
KnowUser() {
  entry=$(getent passwd "$LIMA_CIDATA_USER") || return
  IFS=: read -r _ _ LIMA_CIDATA_UID _ LIMA_CIDATA_COMMENT LIMA_CIDATA_HOME \
    LIMA_CIDATA_SHELL <<ENTRY
$entry
ENTRY
  export LIMA_CIDATA_UID LIMA_CIDATA_COMMENT LIMA_CIDATA_HOME LIMA_CIDATA_SHELL
}

# A file of the disk's with the uid in its place; a likely one before there is
# the user.
Known() {
  sed "s/@sbxfs-uid:\([0-9]*\)@/${LIMA_CIDATA_UID:-\\1}/g" "$1"
}

# Where secrets will lie, in memory; variables for commands given to ssh.
GiveUser() {
  mkdir -p /run/sbxfs
  chmod 700 /run/sbxfs
  [ -e /run/sbxfs/.environment ] ||
    { cat $STATE/environment 2>/dev/null; true; } >/run/sbxfs/.environment
  chown -R "$LIMA_CIDATA_USER:" /run/sbxfs
  [ -e "$LIMA_CIDATA_HOME/.ssh/environment" ] ||
    [ ! -d "$LIMA_CIDATA_HOME/.ssh" ] ||
    ln -sfn /run/sbxfs/.environment "$LIMA_CIDATA_HOME/.ssh/environment"
}

Early() {
  Prepare
  MachineId "$LIMA_CIDATA_IID"
  Hosts
  Environment
  Dns
  EarlySteps
}

Late() {
  GiveUser
  # Aliases of names that only the network knows.
  while read -r name target; do
    address=$(getent ahosts "$target" | sed 's/ .*//;q')
    [ -z "$address" ] || echo "$address $name"
  done <"$MNT/aliases" >$STATE/aliases
  if [ -s $STATE/aliases ]; then
    cat "$MNT/hosts" >>$STATE/aliases
    Block $STATE/aliases /etc/hosts
  fi
  [ -z "$LIMA_CIDATA_UID" ] || echo "uid $LIMA_CIDATA_UID" >>$STATE/state
  LateSteps
  echo all >>$STATE/state
  cd /
  umount -l $MNT
}

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH HOME=/root
. $MNT/env.sh
. $MNT/lima.env
KnowUser
eval "$(Known $MNT/plan)"
case $1 in
  early) Early ;;
  late) Late ;;
esac
# A failure is told by the daemon; to cloud-init all is well.
exit 0
