"""Snapshots, reverts and clones with little and with much in the disk.

usage: tests/bench/disk, which runs: disk.py BIN-DIRECTORY

Blank guests on a libvirtd of its own. SBXFS_BENCH_MIB is how much the full
disk holds (8192; 64 is what the other holds), SBXFS_BENCH_ROUNDS how often
each thing is done (5). Beside them, on the same disks: virsh
snapshot-create-as, a copy by qemu-img, and virt-clone where it is installed.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time

BIN = sys.argv[1]
WORK = os.environ['SBXFS_INSIDE'] + '/bench'
URI = 'qemu:///system'
SMALL = 64
LARGE = int(os.environ.get('SBXFS_BENCH_MIB', '8192'))
ROUNDS = int(os.environ.get('SBXFS_BENCH_ROUNDS', '5'))
VIRSH = ['virsh', '-q', '-c', URI]
BLANK = b'\xfa\xf4\xeb\xfd'.ljust(510, b'\0') + b'\x55\xaa' + bytes(2**20 - 512)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True).stdout.strip()


def write(path, text):
    with open(path, 'wb', buffering=0) as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def timed(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def disk_of(name):
    for line in run(*VIRSH, 'domblklist', name).splitlines():
        target, source = line.split(maxsplit=1)
        if target == 'vda':
            return source if source.startswith('/') else run(
                *VIRSH, 'vol-path', source, '--pool', 'sbxfs')
    sys.exit(f'{name} has no disk')


def boot(box, name):
    status = os.open(f'{box}/{name}/status', os.O_WRONLY | os.O_NONBLOCK)
    os.write(status, b'start\n')
    os.close(status)
    while run(*VIRSH, 'domstate', name) != 'running':
        time.sleep(0.02)


def kill(box, name):
    write(f'{box}/{name}/status', 'kill\n')


def measure(box, name, running):
    """Seconds of each thing, a list each."""
    samples = {'snapshot': [], 'revert': [], 'clone': []}
    if running:
        boot(box, name)
    for i in range(ROUNDS):
        tag = f'{name}-{i}-{int(running)}'
        samples['snapshot'].append(
            timed(lambda: os.mkdir(f'{box}/{name}/snapshots/{tag}')))
        samples['revert'].append(
            timed(lambda: write(f'{box}/{name}/snapshot', tag + '!\n')))
        samples['clone'].append(
            timed(lambda: os.mkdir(f'{box}/{name}/snapshots/{tag}/clones/c{tag}')))
    if running:
        kill(box, name)
    return samples


def peers(name):
    """The same by other means, once each."""
    path, copy = disk_of(name), f'{WORK}/copy.qcow2'
    found = {'qemu-img convert': timed(
        lambda: run('qemu-img', 'convert', '-O', 'qcow2', path, copy))}
    os.unlink(copy)
    found['virsh snapshot-create-as'] = timed(
        lambda: run(*VIRSH, 'snapshot-create-as', name, 'peer', '--disk-only',
                    '--diskspec', f'vda,file={path}.peer', '--diskspec',
                    'vdb,snapshot=no'))
    if shutil.which('virt-clone'):
        found['virt-clone'] = timed(
            lambda: run('virt-clone', '--connect', URI, '-o', name, '-n',
                        f'peer-{name}', '--auto-clone'))
    else:
        print('virt-clone is not installed (package virtinst)')
    # What a revert of a running guest cannot do without.
    run(*VIRSH, 'start', name)
    found['virsh destroy; virsh start'] = statistics.median(
        timed(lambda: (run(*VIRSH, 'destroy', name),
                       run(*VIRSH, 'start', name))) for _ in range(ROUNDS))
    run(*VIRSH, 'destroy', name)
    return found


def main():
    box = f'{WORK}/tree'
    os.makedirs(box)
    daemon = subprocess.Popen([f'{BIN}/sbxfs', '-f', '-o', 'loglevel=error',
                               URI, box])
    while not os.path.ismount(box):
        time.sleep(0.02)
    write(f'{box}/.host/images/blank', BLANK)
    write(f'{box}/.host/defaults.yaml',
          f'images: [{{location: blank}}]\ncpus: 1\nmemory: 32MiB\n'
          f'disk: {LARGE + 1024}MiB\nssh: {{loadDotSSHPubKeys: false}}\n')
    results = {}
    for name, size in (('small', SMALL), ('large', LARGE)):
        os.mkdir(f'{box}/{name}')
        run('qemu-io', '-f', 'qcow2', *sum(
            (['-c', f'write -P 7 {at + 1}M {min(256, size - at)}M']
             for at in range(0, size, 256)), []), disk_of(name))
        results[name] = {running: measure(box, name, running)
                         for running in (False, True)}
    for running in (False, True):
        print(f'{"running" if running else "stopped"}:')
        for what in ('snapshot', 'revert', 'clone'):
            small, large = (statistics.median(results[name][running][what])
                            for name in ('small', 'large'))
            print(f'  {what:10} {small:6.3f} s with {SMALL} MiB, {large:6.3f} s '
                  f'with {LARGE} MiB: ratio {large / small:.2f}')
    for name, size in (('small', SMALL), ('large', LARGE)):
        print(f'others, {size} MiB:')
        for what, seconds in peers(name).items():
            print(f'  {what:26} {seconds:7.3f} s')
    run('fusermount3', '-u', box)
    daemon.wait()


main()
