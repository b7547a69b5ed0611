# The side of virsh: the directory of the default pool, its network, and what
# whoever works so keeps at hand, guest.xml for one. What is booted is Debian;
# what is made only to be started and stopped has a disk without a system.
. "$SBXFS_SOURCE/tests/tasks/both.sh"

network() {
  echo "<network><name>default</name><forward mode='nat'/>
    <bridge name='virbr0'/><ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.100' end='192.168.122.200'/></dhcp></ip>
    </network>" > "$SBXFS_INSIDE/network.xml"
  virsh net-undefine default > /dev/null 2>&1 || :
  virsh net-define "$SBXFS_INSIDE/network.xml"
  virsh net-start default
}
begin() {
  common_begin
  other_machine
  mkdir -p $images
  virsh pool-define-as default dir --target $images
  virsh pool-start default
  network
  cd $images
  cp "$SBXFS_TEST_IMAGE" debian-12.qcow2
  cp ~/blank blank.raw
  cp "$tasks/guest.xml" .
  sed 's/<memory .*/<memory unit="MiB">256<\/memory>/' guest.xml > small.xml
  printf '%s\n' '#cloud-config' 'users:' '- name: joe' '  shell: /bin/bash' \
    '  sudo: ALL=(ALL) NOPASSWD:ALL' '  ssh_authorized_keys:' \
    "  - $(cat ~/.ssh/id_ed25519.pub)" > user-data
  touch meta-data ~/meta-data
  xorriso -as mkisofs -quiet -r -V cidata -o seed.iso user-data meta-data 2> \
    /dev/null
  { cat user-data; echo 'runcmd: [echo hello > /etc/greeting]'; } > ~/user-data
  sed 's/<vcpu>/<vcpus>/' guest.xml > ~/wrong.xml
  # sudo's own, not the machine's.
  mount -t tmpfs -o mode=750 sudoers /etc/sudoers.d
}
end() {
  for name in $(virsh list --all --name); do
    virsh destroy "$name" > /dev/null 2>&1 || :
    virsh undefine "$name" --snapshots-metadata --managed-save > /dev/null
  done
}

blank() { qemu-img create -q -f qcow2 -b blank.raw -F raw "$1.qcow2" 64M; }
make() {
  for name; do
    blank "$name"
    sed "s/NAME/$name/" guest.xml | virsh define /dev/stdin > /dev/null
  done
}
start() { virsh start "$1" > /dev/null; }
off() { for name; do virsh destroy "$name" > /dev/null || :; done; }
disk() { virsh domblklist "$1" | sed -n 's/^ *vda *//p'; }
image() { echo "$images/$1.qcow2"; }
take() { virsh snapshot-create-as "$1" "$2" > /dev/null; }
sees() { state "$@"; }
# Lets ssh find it.
address() {  # NAME ADDRESS
  virsh net-update default add ip-dhcp-host "<host mac='$(
    virsh domiflist "$1" | awk '/default/ { print $5 }')' ip='$2'/>" --live \
    --config > /dev/null
  printf 'Host %s\n HostName %s\n User joe\n' "$1" "$2" >> ~/.ssh/config
}
by_other() {
  case $1 in
    pause) set -- suspend "$2" ;;
  esac
  runuser -u nobody -- sudo -n virsh "$@" > /dev/null 2>&1
}
remove() { virsh undefine "$1"; }
