"""The tree with many sandboxes, against what else one could do.

usage: tests/bench/tree, which runs: tree.py BIN-DIRECTORY

Blank guests on a libvirtd of its own. SBXFS_BENCH_SANDBOXES is how many
sandboxes (1000), SBXFS_BENCH_WAKES how many changes are waited for (100).
"""

import os
import re
import select
import statistics
import subprocess
import sys
import time

BIN = sys.argv[1]
WORK = os.environ['SBXFS_INSIDE'] + '/bench'
URI = 'qemu:///system'
COUNT = int(os.environ.get('SBXFS_BENCH_SANDBOXES', '1000'))
WAKES = int(os.environ.get('SBXFS_BENCH_WAKES', '100'))
READS = 10000
ROUNDS = 10
KEEPALIVE = str(0x6b656570)  # libvirt's number for it
VIRSH = ['virsh', '-q', '-c', URI]
# cli; hlt; jmp to the hlt: a guest that takes no time of the machine's.
BLANK = b'\xfa\xf4\xeb\xfd'.ljust(510, b'\0') + b'\x55\xaa' + bytes(2**20 - 512)
DEFAULTS = ('images: [{location: blank}]\ncpus: 1\nmemory: 32MiB\n'
            'disk: 64MiB\nssh: {loadDotSSHPubKeys: false}\n')


def say(text):
    print(text, flush=True)


def shown(seconds):
    for unit, size in (('s', 1), ('ms', 1e-3)):
        if seconds >= size:
            return f'{seconds / size:.1f} {unit}'
    return f'{seconds * 1e6:.1f} us'


def report(what, samples, *bases):
    """A line: median, 10th to 99th percentile, ratios to other samples."""
    ordered = sorted(samples)
    at = lambda part: shown(ordered[min(int(len(ordered) * part),
                                        len(ordered) - 1)])
    median = statistics.median(samples)
    ratios = [f'{median / statistics.median(base):.2f} x {name}'
              for name, base in bases]
    say(f'  {what:38} {shown(median):>9}   {at(.1)} .. {at(.99)}'
        + ''.join('   ' + ratio for ratio in ratios))


def timed(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write(path, content):
    with open(path, 'wb', buffering=0) as file:
        file.write(content if isinstance(content, bytes) else content.encode())


class Mount:
    """A daemon in the foreground and its mount."""

    def __init__(self, name, command, environment=None):
        self.dir = f'{WORK}/{name}'
        os.makedirs(self.dir)
        self.process = subprocess.Popen(
            command + [self.dir], env={**os.environ, **(environment or {})},
            stderr=subprocess.DEVNULL if environment else None)
        while not os.path.ismount(self.dir):
            if self.process.poll() is not None:
                sys.exit(f'{command[0]} ended')
            time.sleep(0.02)

    def close(self):
        run('fusermount3', '-u', self.dir)
        self.process.wait()
        os.rmdir(self.dir)

    def memory(self):
        """Kilobytes in use, once they have come to rest."""
        before, now = -1, 0
        while before != now:
            time.sleep(1)
            with open(f'/proc/{self.process.pid}/status') as status:
                before, now = now, int(
                    re.search(r'VmRSS:\s*(\d+)', status.read())[1])
        return now


def tree(name='tree', environment=None):
    return Mount(name, [f'{BIN}/sbxfs', '-f', '-o', 'loglevel=error', URI],
                 environment)


def read(path):
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
    """Samples of each, by turns, so that the machine's moods meet them all."""
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
    report(f'mkdir, the last {few}', samples[-few:], ('first', samples[:few]))
    return names


def measure_status(top, name):
    say('Reading status once')
    floor = Mount('floor', [f'{BIN}/bench_floor'])
    shell = Shell()
    samples = rounds({
        'floor': (1000, lambda: read(f'{floor.dir}/status')),
        'tree': (1000, lambda: read(f'{top}/{name}/status')),
        'shell': (100, lambda: shell.domstate(name)),
        'virsh': (3, lambda: run(*VIRSH, 'domstate', name))})
    floor.close()
    report('a minimal FUSE file (the floor)', samples['floor'])
    report('NAME/status', samples['tree'], ('the floor', samples['floor']))
    for what in 'shell', 'virsh':
        each = 'one virsh for all' if what == 'shell' else 'a virsh each'
        report(f'virsh domstate, {each}', samples[what],
               ('status', samples['tree']))


def measure_lists(top, names):
    say(f'All {COUNT} at once')
    memory = f'{WORK}/memory'
    os.mkdir(memory)
    run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'bench', memory)
    for name in names:
        os.mkdir(f'{memory}/{name}')
        write(f'{memory}/{name}/status', 'stopped\n')
    samples = rounds({
        'virsh': (1, lambda: run(*VIRSH, 'list', '--all')),
        'tmpfs ls -l': (1, lambda: run('ls', '-l', memory)),
        'tree ls -l': (1, lambda: run('ls', '-l', top)),
        'tmpfs cat */status':
            (1, lambda: run('sh', '-c', f'cat {memory}/*/status')),
        'tree cat */status':
            (1, lambda: run('sh', '-c', f'cat {top}/*/status'))})
    run('umount', memory)
    report('virsh list --all', samples['virsh'])
    for what in 'ls -l', 'cat */status':
        report(f'{what}, tmpfs', samples[f'tmpfs {what}'])
        report(f'{what}, the tree', samples[f'tree {what}'],
               ('tmpfs', samples[f'tmpfs {what}']),
               ('virsh list', samples['virsh']))


def measure_calls(name):
    """Counts what another daemon sends to libvirtd, in libvirt's own log."""
    log = f'{WORK}/calls.log'
    mount = tree('counted', {
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
    reads = calls(lambda: repeated(
        READS, lambda: read(f'{mount.dir}/{name}/status')))
    say(f'  {READS} reads of NAME/status: {reads}')
    check = calls(lambda: write(f'{mount.dir}/{name}/autostart', '1\n'))
    say(f'  a write to NAME/autostart, which shows that they count: {check}')
    mount.close()


def measure_wakes(top, name):
    """From the moment virsh is told until poll(2) returns."""
    say('Wake-up of poll(2) on NAME/status after virsh suspend and resume')
    # A blank guest never answers, so this is not waited for.
    file = os.open(f'{top}/{name}/status', os.O_WRONLY | os.O_NONBLOCK)
    os.write(file, b'start\n')
    os.close(file)
    while 'running' not in subprocess.check_output(
            VIRSH + ['domstate', name], text=True):
        time.sleep(0.1)
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
    report('virsh event, another process', told)
    report('poll(2)', woken, ('virsh event', told))
    os.close(status)
    write(f'{top}/{name}/status', 'kill\n')
    events.terminate()


def main():
    os.mkdir(WORK)
    mount = tree()
    write(f'{mount.dir}/.host/images/blank', BLANK)
    write(f'{mount.dir}/.host/defaults.yaml', DEFAULTS)
    mount.close()
    say('median, 10th to 99th percentile, ratio of medians')
    mount = tree()
    empty = mount.memory()
    say('Making them')
    names = measure_mkdir(mount.dir)
    mount.close()
    mount = tree()
    full = mount.memory()
    measure_status(mount.dir, names[0])
    measure_lists(mount.dir, names)
    run('sh', '-c', f'cat {mount.dir}/*/* > /dev/null 2>&1 || :')
    read_all = mount.memory()
    measure_calls(names[0])
    measure_wakes(mount.dir, names[0])
    say('Memory of the daemon')
    say(f'  without a sandbox {empty} kB; a sandbox, just mounted: '
        f'{(full - empty) / COUNT:.1f} kB; every file of it read: '
        f'{(read_all - empty) / COUNT:.1f} kB')
    mount.close()


main()
