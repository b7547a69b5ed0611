# Makes a guest that goes on from a memory template the sandbox that it is. Runs
# by the guest agent, before anybody is told that the guest can be used, and may
# run again. Set before it: NAME (of the host), ID, MACHINE, LOGIN, MAC, PUBLIC,
# KEYS, TIME, and BOOT where boot.sh has more to do than it had in the template.
# The private host key is the standard input. Says what boot.sh would note.
#
# With NICS, lines of NAME MAC METRIC, it runs twice: as PART=names, then they
# are plugged in, then as PART=rest. What plugs them in first would have the guest ask
# for addresses in the template's name.
#
# A process costs tens of milliseconds under emulation: the shell does what it
# can by itself.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
STATE=/var/lib/sbxfs
ASKED=/run/sbxfs.address

# FILE FROM TO: everywhere in it.
Replace() {
  [ -f "$1" ] || return 0
  text=
  while IFS= read -r line || [ -n "$line" ]; do
    # What was put in may have FROM in it.
    while :; do
      case $line in
        *"$2"*)
          text=$text${line%%"$2"*}$3
          line=${line#*"$2"}
          ;;
        *) break ;;
      esac
    done
    text="$text$line
"
  done <"$1"
  printf '%s' "$text" >"$1"
}

# The guest's user, as it knows it.
User() {
  uid='' home=''
  while IFS=: read -r login _ number _ _ directory _; do
    [ "$login" != "$LOGIN" ] || uid=$number home=$directory
  done </etc/passwd
}

Names() {
  date -u -s "@$TIME" >/dev/null
  Address
  read -r old </etc/hostname
  if [ "$old" != "$NAME" ]; then
    Replace /etc/hosts "$old" "$NAME"
    printf '%s\n' "$NAME" >/proc/sys/kernel/hostname
    printf '%s\n' "$NAME" >/etc/hostname
  fi
  printf '%s\n' "$MACHINE" >/etc/machine-id
  printf '%s\n' "$ID" >$STATE/instance

  # sshd reads them at each connection.
  umask 077
  while IFS= read -r line; do
    printf '%s\n' "$line"
  done >/etc/ssh/ssh_host_ed25519_key || exit
  umask 022
  printf '%s\n' "$PUBLIC" >/etc/ssh/ssh_host_ed25519_key.pub

  User
  if [ ! -w "$home/.ssh/authorized_keys" ]; then
    echo "there is no authorized_keys of $LOGIN"
    exit 1
  fi
  printf '%s' "$KEYS" >"$home/.ssh/authorized_keys"
}

# QEMU's side has the new one already.
Address() {
  read -r old </sys/class/net/eth0/address
  [ "$old" != "$MAC" ] || return 0
  Lease
  [ ! -e "$lease" ] || : >$ASKED
  ip link set dev eth0 address "$MAC" || exit
  for file in /etc/netplan/*.yaml /etc/systemd/network/* \
    /run/systemd/network/*; do
    Replace "$file" "$old" "$MAC"
  done
}

# What systemd-networkd got by DHCP.
Lease() {
  read -r index </sys/class/net/eth0/ifindex
  lease=/run/systemd/netif/leases/$index
}

# It gives that up when the address changes, and asks again, for the same.
# Whoever connects meanwhile would wait for 6 s: so long is it until slirp sends
# a SYN once more.
AwaitLease() {
  [ -e $ASKED ] || return 0
  Lease
  tries=40
  # shellcheck disable=SC3013 # what goes with systemd has it: dash, bash
  until [ "$lease" -nt $ASKED ] || [ $tries -le 0 ]; do
    sleep 0.05
    tries=$((tries - 1))
  done
}

# NAME MAC METRIC ONLINE DOMAINS: as cloud-init's seed has it from the next boot
# on, which this ends with.
Network() {
  {
    printf '[Match]\nMACAddress=%s\n\n[Link]\nRequiredForOnline=%s\n\n' "$2" "$4"
    printf '[Network]\nDHCP=ipv4\n%s\n[DHCPv4]\nRouteMetric=%s\n' "$5" "$3"
    # It would ask hostnamed to take one from there, which takes seconds to
    # start, and keeps what is in /etc/hostname.
    printf 'UseHostname=false\n'
    # What netplan makes of the seed's, and other renderers leave out.
    [ ! -d /etc/netplan ] || printf 'ClientIdentifier=mac\nUseMTU=true\n'
  } >"$DIR/05-sbxfs-$1.network"
}

# What systemd-networkd and udev are to know of them before they come.
Networks() {
  DIR=/run/systemd/network
  mkdir -p $DIR
  Network eth0 "$MAC" 200 yes ''
  while read -r name mac metric; do
    [ -n "$name" ] || continue
    Network "$name" "$mac" "$metric" no 'Domains=internal
'
    printf '[Match]\nMACAddress=%s\n\n[Link]\nName=%s\n' "$mac" "$name" \
      >"$DIR/05-sbxfs-$name.link"
  done <<NICS
$NICS
NICS
  udevadm control --reload
  # It keeps the machine id that it began with, and tells who it is to DHCP
  # servers by that.
  systemctl restart systemd-networkd
}

# NAME MAC: the device has its name; true when it has an address too.
HasAddress() {
  if [ ! -e "/sys/class/net/$1" ]; then
    for file in /sys/class/net/*/address; do
      read -r address <"$file"
      [ "$address" = "$2" ] || continue
      device=${file%/address}
      ip link set dev "${device##*/}" name "$1"
    done
    return 1
  fi
  case $(ip -4 -o address show dev "$1") in
    *inet*) ;;
    *) return 1 ;;
  esac
}

# A boot has them before its scripts run, and goes on without one that nobody
# gives an address.
AwaitNetworks() {
  tries=50
  while read -r name mac _; do
    [ -n "$name" ] || continue
    # The rule that names it has its turn first.
    until [ -e "/sys/class/net/$name" ] || [ $tries -lt 40 ]; do
      sleep 0.2
      tries=$((tries - 1))
    done
    until HasAddress "$name" "$mac" || [ $tries -le 0 ]; do
      sleep 0.2
      tries=$((tries - 1))
    done
  done <<NICS
$NICS
NICS
}

Rest() {
  AwaitLease
  read -r boot </proc/sys/kernel/random/boot_id
  if [ -z "$BOOT" ]; then
    printf 'boot %s\nsteps 0\nuid %s\nall\n' "$boot" "$uid" >$STATE/state
  else
    printf 'boot %s\nsteps 0\n' "$boot" >$STATE/state
    : >/run/sbxfs.warm
    setsid sh -c '
      d=/mnt/lima-cidata
      rm -f /run/sbxfs/.environment
      mkdir -p $d
      mountpoint -q $d || mount -o ro LABEL=cidata $d
      sh $d/boot.sh early
      sh $d/boot.sh late
      rm -f /run/sbxfs.warm
    ' >/dev/null 2>&1 </dev/null &
  fi
  printf 'now %s\nboot %s\nuid %s\n' "$boot" "$boot" "$uid"
}

case ${PART-} in
  names)
    Names
    Networks
    ;;
  rest)
    User
    AwaitNetworks
    Rest
    ;;
  *)
    Names
    Rest
    ;;
esac
