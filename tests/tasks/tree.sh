# The tree's side: a mount, with the image that Debian guests are made of.
. "$SBXFS_SOURCE/tests/tasks/both.sh"
mount=$SBXFS_INSIDE/sandboxes
pool=/var/lib/libvirt/sbxfs
export XDG_DATA_HOME=$SBXFS_INSIDE/data

serve() {  # DIRECTORY URI [OPTION]
  mkdir "$1"
  sbxfs -o "loglevel=warning,log=$SBXFS_INSIDE/log,allow_other${3:+,$3}" \
    "$2" "$1"
}
# Of one that is being made another line tells.
has_template() { grep -q '^debian-12: cpus 1, memory 512MiB, ' .host/warm; }
begin() {
  common_begin
  other_machine  # before the mount, which its namespace would hold
  ln -s "$SBXFS_BIN/sbxfs" "$SBXFS_INSIDE/bin/sbxfs"
  # The template that another test has left, with its image.
  if [ -e "${SBXFS_TEST_POOL:-/none}" ]; then
    mkdir -p $pool
    chmod 711 $pool
    cp -a "$SBXFS_TEST_POOL/." $pool
  fi
  serve "$mount" qemu:///system
  cd "$mount"
  [ -e .host/images/debian-12 ] ||
    cp "$SBXFS_TEST_IMAGE" .host/images/debian-12
  # What the template is of.
  printf '%s\n' 'cpus: 1' 'memory: 512MiB' 'disk: 4GiB' 'user: {name: joe}' \
    'ssh: {loadDotSSHPubKeys: false}' > .host/defaults.yaml
  echo 'memory: 256MiB' > .host/templates/small.yaml
  printf '%s\n' 'cpus: 1' 'snapshotMemory: true' 'provision:' '- script: |' \
    '    #!/bin/sh' '    echo hello > /etc/greeting' > ~/agent.yaml
  printf '%s\n' 'cpus: 1' 'memroy: 1GiB' > ~/wrong.yaml
  has_template && return
  echo 'no memory template yet: making one'
  mkdir first
  echo start > first/status
  echo kill > first/status
  for _ in {1..600}; do
    has_template && break
    sleep 1
  done
  rmdir first
}
end() {
  cd "$mount"
  for box in *; do
    [ "$box" != '*' ] || break
    echo kill > "$box/status"
    rmdir "$box"
  done
  rmdir .host/trash/* 2> /dev/null || :
  cd /
  fusermount3 -u "$mount"
  eventually not pgrep -x sbxfs > /dev/null
  not grep -E '^sbxfs: (warn|error|crit)' "$SBXFS_INSIDE/log"
}

make() { mkdir "$@"; }
start() { echo start > "$1/status"; }
off() { for name; do echo kill > "$name/status"; done; }
disk() {
  local source
  source=$(virsh domblklist "$1" | sed -n 's/^ *vda *//p')
  case $source in
    /*) echo "$source" ;;
    *) virsh vol-path --pool sbxfs "$source" | head -n 1 ;;
  esac
}
image() { echo "$pool/image.$1"; }
take() { mkdir "$1/snapshots/$2"; }
# What virsh changed is seen by an event.
sees() { eventually grep -qx "$2" "$1/status"; }
# What another user may do.
by_other() { runuser -u nobody -- sh -c "echo $1 > $2/status" 2> /dev/null; }
remove() { rmdir "$1"; }
