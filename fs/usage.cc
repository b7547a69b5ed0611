// What --help prints: tests compare it with the table of options and with the
// manual.

#include <string>

#include "fs/options.h"

namespace sbxfs {

std::string CommandUsage() {
  return R"(Usage: sbxfs [-f] [-d] [-o OPTION,...] [URI] DIR
       sbxfs --status [DIR]
Shows the sandboxes of a libvirt hypervisor as directories below DIR.

  URI                   libvirt's name of the hypervisor, qemu:///system say;
                        without it libvirt's own default, else qemu:///session
  -f                    stay in the foreground, log to stderr
  -d                    the same, and log all that happens
      --check           look at the arguments and the directory, mount nothing
      --connect         with DIR/NAME: start that sandbox and carry ssh to it;
                        for the ProxyCommand of ssh_config
      --status          what is mounted here, or at DIR: whether its hypervisor
                        is connected, and the sandboxes
      --only-mount      mount, and have the service manager hand the mount on to
                        the daemon of the same unit: see sbxfs(8)
  -h, --help            print this and leave
  -V, --version         print the version and leave

Options after -o:
  trash=TIME            how long .host/trash keeps what rmdir took (1d; 0 not
                        at all); seconds, or with s, m, h, d
  start                 boot a sandbox when mkdir makes it
  all                   show virtual machines made by others too
  cold                  boot every guest: make and use no memory templates
  pool=NAME             storage pool for disks and images (sbxfs)
  disk_pool=NAME        storage pool for additional disks, in a volume group or
                        a Ceph cluster, say (the same)
  ssh_config=FILE       with qemu+ssh: look up host, port, user and key there
  hosts=FILE            in the place of URI: several hypervisors, a line NAME
                        URI for each
  insecure_tcp          allow qemu+tcp, which has no encryption and no password
  start_timeout=TIME    how long a start may take (600)
  stop_timeout=TIME     how long a guest may take to shut down (60)
  allow_other           let other users in; each sees what is theirs
  user_sandboxes=NUMBER, user_memory=SIZE, user_disk=SIZE, user_ports=NUMBER,
  user_jobs=NUMBER      with allow_other: what each other user may have
  group=GROUP           with allow_other: let only this group make sandboxes;
                        for mount(8) and fstab: gid=GROUP
  ro                    read-only
  log=TARGET            stderr, syslog, journal or a file (syslog; -f: stderr)
  loglevel=LEVEL        trace, debug, info, warning, error, critical, off
                        (warning; with -d debug)
  sloppy                warn about unknown options instead of refusing them
and FUSE's own: allow_root, auto_unmount, max_read=BYTES, noexec, noatime, ...

To unmount: fusermount3 -u DIR. The manual: sbxfs(8), and sbxfs(5) on the tree.
)";
}

}  // namespace sbxfs
