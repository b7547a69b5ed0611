"""The tree with many sandboxes, against what else one could do.

usage: tests/bench/run tree, which runs: tree.py BIN-DIRECTORY

Blank guests on a libvirtd of its own. SBXFS_BENCH_SANDBOXES is how many
sandboxes (1000), SBXFS_BENCH_WAKES how many changes are waited for (100).
"""

import os
import re
import select
import subprocess
import sys
import time

from box import (BIN, BLANK, VIRSH, WORK, Mount, boot, defaults, idle_wakes,
                 kill, run, tree, write)
from figures import MIB, report, timed

COUNT = int(os.environ.get('SBXFS_BENCH_SANDBOXES', '1000'))
WAKES = int(os.environ.get('SBXFS_BENCH_WAKES', '100'))
READS = 10000
ROUNDS = 10
KEEPALIVE = str(0x6b656570)  # libvirt's number for it


def say(text):
    print(text, flush=True)


def read_once(path):
    file = os.open(path, os.O_RDONLY)
    os.read(file, 4096)
    os.close(file)


def repeated(count, action):
    """Seconds for one of `count` times."""
    def batch():
        for _ in range(count):
            action()
    return timed(batch) / count


def rounds(actions):
    """Samples of each, by turns, so that the machine's moods meet them all.

    The first time of each is not counted: what is cached by then is.
    """
    for _, action in actions.values():
        action()
    samples = {what: [] for what in actions}
    for _ in range(ROUNDS):
        for what, (count, action) in actions.items():
            samples[what].append(repeated(count, action))
    return samples


class Shell:
    """One virsh that is fed commands, so that none pays for its start."""

    def __init__(self):
        self.process = subprocess.Popen(
            VIRSH, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            bufsize=1)

    def send(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()

    def domstate(self, name):
        self.send(f'domstate {name}')
        while 'shut off' not in self.process.stdout.readline():
            pass


def make(path):
    # On a busy machine libvirt may be late, and mkdir says so.
    for _ in range(10):
        try:
            return os.mkdir(path)
        except TimeoutError:
            print(f'  {os.path.basename(path)}: made again, libvirt was late',
                  file=sys.stderr)
    sys.exit(f'  {path} could not be made')


def measure_mkdir(top):
    names = [f'box{number:04}' for number in range(COUNT)]
    samples = []
    for number, name in enumerate(names):
        if number % 50 == 0:
            print(f'  making {COUNT} sandboxes: {number}', end='\r',
                  file=sys.stderr, flush=True)
        samples.append(timed(lambda: make(f'{top}/{name}')))
    few = max(COUNT // 10, 1)
    report(f'mkdir, the first {few}', samples[:few])
    report(f'mkdir, the last {few} of {COUNT}', samples[-few:],
           (f'the first {few}', samples[:few]))
    return names


def measure_status(top, name):
    say('Reading status once')
    floor = Mount('floor', [f'{BIN}/bench_floor'])
    shell = Shell()
    samples = rounds({
        'floor': (1000, lambda: read_once(f'{floor.dir}/status')),
        'tree': (1000, lambda: read_once(f'{top}/{name}/status')),
        'shell': (100, lambda: shell.domstate(name)),
        'virsh': (3, lambda: run(*VIRSH, 'domstate', name))})
    shell.process.stdin.close()
    shell.process.wait()
    floor.close()
    what = 'cat NAME/status (open, read, close)'
    report(what, samples['tree'], ('a minimal FUSE file', samples['floor']),
           goal_ratio=1.15)
    report(what, samples['tree'], ('virsh domstate', samples['virsh']),
           goal_ratio=1 / 300)
    report(what, samples['tree'],
           ('domstate, one virsh for all', samples['shell']))


def measure_lists(top, names):
    say(f'All {COUNT} at once')
    memory = f'{WORK}/memory'
    os.mkdir(memory)
    run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'bench', memory)
    for name in names:
        os.mkdir(f'{memory}/{name}')
        write(f'{memory}/{name}/status', 'stopped\n')
    samples = rounds({'virsh': (1, lambda: run(*VIRSH, 'list', '--all'))} | {
        (what, where): (1, lambda do=do, path=path: do(path))
        for what, do in (
            ('stat of each', lambda path: stat_all(path, names)),
            ('ls -l', lambda path: run('ls', '-l', path)),
            ('cat */status', lambda path: run('sh', '-c',
                                              f'cat {path}/*/status')))
        for where, path in (('tmpfs', memory), ('tree', top))})
    run('umount', memory)
    for what in 'stat of each', 'ls -l', 'cat */status':
        report(f'{what} of {COUNT}, again', samples[what, 'tree'],
               ('tmpfs', samples[what, 'tmpfs']),
               goal_ratio=None if 'cat' in what else 1.5)
    for what in 'ls -l', 'cat */status':
        report(f'{what} of {COUNT}, again', samples[what, 'tree'],
               ('virsh list --all', samples['virsh']))


def stat_all(top, names):
    for name in names:
        os.stat(f'{top}/{name}')


def measure_calls(names):
    """Counts what another daemon sends to libvirtd, in libvirt's own log."""
    log = f'{WORK}/calls.log'
    mount = tree('counted', environment={
        'LIBVIRT_DEBUG': '1', 'LIBVIRT_LOG_FILTERS': '1:rpc',
        'LIBVIRT_LOG_OUTPUTS': f'1:file:{log}'})

    def calls(action):
        begin = -1
        while begin != os.path.getsize(log):  # what came before is at its end
            begin = os.path.getsize(log)
            time.sleep(2)
        action()
        time.sleep(0.2)
        with open(log) as file:
            file.seek(begin)
            sent = re.findall(r'RPC_CLIENT_MSG_TX_QUEUE: .* prog=(\d+)',
                              file.read())
        return len([program for program in sent if program != KEEPALIVE])

    say('Calls to libvirt')
    status = f'{mount.dir}/{names[0]}/status'
    for what, action in (
            (f'{READS} reads of NAME/status',
             lambda: repeated(READS, lambda: read_once(status))),
            (f'stat of each of {COUNT}, again',
             lambda: stat_all(mount.dir, names)),
            (f'ls -l of {COUNT}, again', lambda: run('ls', '-l', mount.dir))):
        action()
        report(f'libvirt calls in {what}', [calls(action)], unit='',
               goal_value=0)
    check = calls(lambda: write(f'{mount.dir}/{names[0]}/autostart', '1\n'))
    say(f'  a write to NAME/autostart, which shows that they count: {check}')
    mount.close()


def measure_wakes(top, name):
    """When poll(2) returns after a change that virsh is told to make."""
    say('Wake-up of poll(2) on NAME/status after virsh suspend and resume')
    boot(f'{top}/{name}')
    status = os.open(f'{top}/{name}/status', os.O_RDONLY)
    shell = Shell()
    events = subprocess.Popen(
        ['stdbuf', '-oL'] + VIRSH + ['event', '--loop', '--event', 'lifecycle'],
        stdout=subprocess.PIPE)
    time.sleep(1)
    woken, told = [], []
    for number in range(WAKES):
        os.lseek(status, 0, 0)
        os.read(status, 99)
        waiting = select.poll()
        waiting.register(status, select.POLLPRI)
        waiting.register(events.stdout, select.POLLIN)
        begin = time.perf_counter()
        shell.send(('suspend ' if number % 2 == 0 else 'resume ') + name)
        pending = {status: woken, events.stdout.fileno(): told}
        while pending:
            ready = waiting.poll(10000)
            if not ready:
                sys.exit(f'  nothing within 10 s at change {number}')
            for descriptor, _ in ready:
                pending.pop(descriptor).append(time.perf_counter() - begin)
                waiting.unregister(descriptor)
        os.read(events.stdout.fileno(), 65536)
        time.sleep(0.05)
    # The event itself is seen by virsh first.
    later = [max(ours - theirs, 0) for ours, theirs in zip(woken, told)]
    report('event in virsh -> poll(2) returns, 99th percentile', later, at=.99,
           goal_value=0.010)
    report('change by virsh -> poll(2) returns', woken, ('virsh event', told))
    os.close(status)
    kill(f'{top}/{name}')
    shell.process.stdin.close()
    events.terminate()


def main():
    os.mkdir(WORK)
    mount = tree()
    write(f'{mount.dir}/.host/images/blank', BLANK)
    write(f'{mount.dir}/.host/defaults.yaml', defaults(64))
    mount.close()
    say('median, 10th to 90th percentile, ratio of medians')
    mount = tree()
    empty = mount.memory()
    say('Making them')
    names = measure_mkdir(mount.dir)
    mount.close()
    mount = tree()
    full = mount.memory()
    say('The daemon at rest')
    report('daemon memory without a sandbox', [empty], unit='B',
           goal_value=24 * MIB)
    report(f'daemon memory a sandbox, of {COUNT}', [(full - empty) / COUNT],
           unit='B', goal_value=8 * 1024)
    idle_wakes(mount)
    measure_status(mount.dir, names[0])
    measure_lists(mount.dir, names)
    run('sh', '-c', f'cat {mount.dir}/*/* > /dev/null 2>&1 || :')
    report('daemon memory a sandbox, every file read',
           [(mount.memory() - empty) / COUNT], unit='B')
    measure_calls(names)
    measure_wakes(mount.dir, names[0])
    mount.close()


main()
