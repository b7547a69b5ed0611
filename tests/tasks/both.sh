# What fragments, checks and preparations are given on either side: HOME, the
# current directory, and these. Sourced by bash, after it tree.sh or virsh.sh.
tasks=$SBXFS_SOURCE/tests/tasks
images=/var/lib/libvirt/images
export HOME=$SBXFS_INSIDE/home PATH=$SBXFS_INSIDE/bin:$PATH
export LIBVIRT_DEFAULT_URI=qemu:///system LC_ALL=C
export API_KEY=sk-4f1d7a

# ssh and scp look into the passwd file for a home; here it is HOME. What is
# below is what people have: a key, and a policy for new hosts.
common_begin() {
  mkdir -p ~/.ssh "$SBXFS_INSIDE/bin" ~/src
  chmod 700 ~/.ssh
  ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
  touch ~/.ssh/config
  printf '%s\n' "Include $HOME/.ssh/config" 'Host *' 'BatchMode yes' \
    "IdentityFile $HOME/.ssh/id_ed25519" 'StrictHostKeyChecking accept-new' \
    "UserKnownHostsFile $HOME/.ssh/known_hosts" 'LogLevel ERROR' \
    'ConnectTimeout 30' > ~/.ssh/all
  for program in ssh scp; do
    printf '#!/bin/sh\nexec /usr/bin/%s -F "%s" "$@"\n' $program ~/.ssh/all \
      > "$SBXFS_INSIDE/bin/$program"
    chmod +x "$SBXFS_INSIDE/bin/$program"
  done
  # cli; hlt; jmp to the hlt: a guest that takes no time of the machine's.
  { printf '\372\364\353\375'; head -c 506 /dev/zero; printf '\125\252'
    head -c $((2**20 - 512)) /dev/zero; } > ~/blank
  qemu-img convert -O qcow2 ~/blank ~/small.qcow2
  seq 20 > ~/numbers
}

# Another libvirtd, `there`, as if on another machine, with an sshd.
other_machine() {
  far=$SBXFS_INSIDE/far
  mkdir "$far"
  ssh-keygen -q -t ed25519 -N '' -f "$far/host_key"
  printf '%s\n' 'Port 2299' 'ListenAddress 127.0.0.1' \
    "HostKey $far/host_key" "AuthorizedKeysFile $HOME/.ssh/id_ed25519.pub" \
    "PidFile $far/sshd.pid" 'StrictModes no' 'UsePAM no' \
    'Subsystem sftp internal-sftp' > "$far/sshd_config"
  printf '%s\n' 'Host there' 'HostName 127.0.0.1' 'Port 2299' 'User root' '' \
    >> ~/.ssh/config
  "$SBXFS_SOURCE/tests/support/inside" --beside "$far" \
    sh -c "touch $far/ready; exec sleep infinity" &
  until [ -e "$far/ready" ]; do sleep 0.1; done
}
there='qemu+unix:///system?socket='$SBXFS_INSIDE/far/run/libvirt-sock

# Whether all of these is in what the fragment printed.
printed() {
  for words; do grep -q -- "$words" "$out" || return; done
}
state() { [ "$(virsh domstate "$1")" = "$2" ]; }
eventually() {  # COMMAND...
  for _ in {1..100}; do
    "$@" && return
    sleep 0.1
  done
  return 1
}
not() { ! "$@"; }
# As root in the guest, by its agent: says what the command says.
guest() { python3 -B "$tasks/guest.py" "$@"; }
on() { for name; do start "$name"; done; }
# A byte in the disk of one that is stopped.
fill() { qemu-io -f qcow2 -c "write -P $2 1M 64k" "$(disk "$1")" > /dev/null; }
holds() { file_holds "$(disk "$1")" "$2"; }
file_holds() {
  local said
  said=$(qemu-io -r -U -f qcow2 -c "read -P $2 1M 64k" "$1" 2>&1)
  [[ $said == *65536/65536* && $said != *failed* ]]
}
backing() { qemu-img info -U "$(disk "$1")" | sed -n 's/^backing file: //p'; }
# Whether all files of its disks are there.
complete() {
  local file
  while read -r file; do
    [ -e "$file" ] || return
  done < <(virsh domblklist "$1" | grep -o '/.*')
}
# Whether a word is anywhere in the disk.
disk_has() {
  qemu-img convert -U -O raw "$(disk "$1")" "$SBXFS_INSIDE/raw"
  local result=0
  grep -aq "$2" "$SBXFS_INSIDE/raw" || result=$?
  rm "$SBXFS_INSIDE/raw"
  return $result
}
