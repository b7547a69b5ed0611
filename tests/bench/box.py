"""What the benchmarks do alike: mounts, blank guests, virsh."""

import os
import re
import subprocess
import sys
import time

from figures import report

BIN = sys.argv[1]
WORK = os.environ['SBXFS_INSIDE'] + '/bench'
URI = 'qemu:///system'
VIRSH = ['virsh', '-q', '-c', URI]
IDLE = 60  # seconds
# cli; hlt; jmp to the hlt: a guest that takes no time of the machine's.
BLANK = b'\xfa\xf4\xeb\xfd'.ljust(510, b'\0') + b'\x55\xaa' + bytes(2**20 - 512)


def run(*command, check=True):
    """What it says."""
    return subprocess.run(command, check=check, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True).stdout.strip()


def read(path):
    with open(path) as file:
        return file.read()


def write(path, content):
    with open(path, 'wb', buffering=0) as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def write_soon(path, text):
    """Without waiting for what comes of it."""
    file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(file, text.encode())
    os.close(file)


class Mount:
    """A daemon in the foreground and its mount."""

    def __init__(self, name, command, environment=None, log=None):
        self.dir = f'{WORK}/{name}'
        os.makedirs(self.dir, exist_ok=True)
        if environment and not log:
            log = subprocess.DEVNULL  # libvirt's own
        self.process = subprocess.Popen(
            command + [self.dir], env={**os.environ, **(environment or {})},
            stderr=log)
        while not os.path.ismount(self.dir):
            if self.process.poll() is not None:
                sys.exit(f'{command[0]} ended')
            time.sleep(0.005)

    def close(self):
        run('fusermount3', '-u', self.dir)
        self.process.wait()
        os.rmdir(self.dir)

    def processes(self):
        """Those of the mount: the one that holds it, and its daemon."""
        pid = self.process.pid
        return [str(pid), *read(f'/proc/{pid}/task/{pid}/children').split()]

    def memory(self):
        """Bytes in use, once they have come to rest.

        All that the daemon has, and of the one that holds the mount what is
        its own: the rest is the same program.
        """
        before, now = -1, 0
        while before != now:
            time.sleep(1)
            holder, *daemon = self.processes()
            own = re.findall(r'\nPrivate_\w+:\s*(\d+)',
                             read(f'/proc/{holder}/smaps_rollup'))
            whole = [re.search(r'VmRSS:\s*(\d+)',
                               read(f'/proc/{pid}/status'))[1]
                     for pid in daemon]
            before, now = now, 1024 * sum(map(int, own + whole))
        return now

    def wakes(self):
        """How often its threads have gone to sleep so far."""
        tasks = [f'/proc/{pid}/task/{task}' for pid in self.processes()
                 for task in os.listdir(f'/proc/{pid}/task')]
        return sum(int(re.search(r'\nvoluntary_ctxt_switches:\s*(\d+)',
                                 read(f'{task}/status'))[1])
                   for task in tasks)


def tree(name='tree', options='loglevel=error', environment=None, log=None):
    return Mount(name, [f'{BIN}/sbxfs', '-f', '-o', options, URI], environment,
                 log)


def idle_wakes(mount):
    """libvirtd asks each connection with events every 5 s whether it lives.

    That is counted, too, unless its configuration says keepalive_interval=-1.
    """
    before = mount.wakes()
    time.sleep(IDLE)
    report(f'wake-ups of the idle daemon in {IDLE} s',
           [mount.wakes() - before], unit='', goal_value=0)


def defaults(disk):
    return ('images: [{location: blank}]\ncpus: 1\nmemory: 32MiB\n'
            f'disk: {disk}MiB\nssh: {{loadDotSSHPubKeys: false}}\n')


def boot(path):
    """A blank guest never answers, so that is not waited for."""
    write_soon(path + '/status', 'start\n')
    while run(*VIRSH, 'domstate', os.path.basename(path)) != 'running':
        time.sleep(0.02)


def kill(path):
    write(path + '/status', 'kill\n')
