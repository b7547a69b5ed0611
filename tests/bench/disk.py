"""Snapshots, reverts and clones with little and with much in the disk.

usage: tests/bench/run disk, which runs: disk.py BIN-DIRECTORY

Blank guests on a libvirtd of its own. SBXFS_BENCH_MIB is how much the full
disk holds (8192; 64 is what the other holds), SBXFS_BENCH_ROUNDS how often
each thing is done (5). Beside them, on the same disks: virsh
snapshot-create-as, a copy by qemu-img, and virt-clone where it is installed.
"""

import os
import shutil
import sys

from box import (BLANK, URI, VIRSH, WORK, boot, defaults, kill, run, tree,
                 write)
from figures import report, timed

SMALL = 64
LARGE = int(os.environ.get('SBXFS_BENCH_MIB', '8192'))
ROUNDS = int(os.environ.get('SBXFS_BENCH_ROUNDS', '5'))
SIZES = {'small': SMALL, 'large': LARGE}


def disk_of(name):
    for line in run(*VIRSH, 'domblklist', name).splitlines():
        target, source = line.split(maxsplit=1)
        if target == 'vda':
            return source if source.startswith('/') else run(
                *VIRSH, 'vol-path', source, '--pool', 'sbxfs')
    sys.exit(f'{name} has no disk')


def measure(path, running):
    """Seconds of each thing, a list each."""
    samples = {'snapshot': [], 'revert': [], 'clone': []}
    name = os.path.basename(path)
    if running:
        boot(path)
    for i in range(ROUNDS):
        tag = f'{name}-{i}-{int(running)}'
        samples['snapshot'].append(
            timed(lambda: os.mkdir(f'{path}/snapshots/{tag}')))
        samples['revert'].append(
            timed(lambda: write(path + '/snapshot', tag + '!\n')))
        samples['clone'].append(
            timed(lambda: os.mkdir(f'{path}/snapshots/{tag}/clones/c{tag}')))
    if running:
        kill(path)
    return samples


def peers(name):
    """The same by other means: seconds, a list each."""
    path, copy = disk_of(name), f'{WORK}/copy.qcow2'
    found = {'qemu-img convert': [timed(
        lambda: run('qemu-img', 'convert', '-O', 'qcow2', path, copy))]}
    os.unlink(copy)
    found['virsh snapshot-create-as'] = [timed(
        lambda: run(*VIRSH, 'snapshot-create-as', name, 'peer', '--disk-only',
                    '--diskspec', f'vda,file={path}.peer', '--diskspec',
                    'vdb,snapshot=no'))]
    if shutil.which('virt-clone'):
        found['virt-clone'] = [timed(
            lambda: run('virt-clone', '--connect', URI, '-o', name, '-n',
                        f'peer-{name}', '--auto-clone'))]
    # What a revert of a running guest cannot do without.
    run(*VIRSH, 'start', name)
    found['virsh destroy; virsh start'] = [
        timed(lambda: (run(*VIRSH, 'destroy', name),
                       run(*VIRSH, 'start', name))) for _ in range(ROUNDS)]
    run(*VIRSH, 'destroy', name)
    return found


def named(what, running):
    return f'{what}, {"running" if running else "stopped"}, {LARGE} MiB'


def main():
    os.makedirs(WORK)
    mount = tree()
    write(f'{mount.dir}/.host/images/blank', BLANK)
    write(f'{mount.dir}/.host/defaults.yaml', defaults(LARGE + 1024))
    results = {}
    for name, size in SIZES.items():
        os.mkdir(f'{mount.dir}/{name}')
        run('qemu-io', '-f', 'qcow2', *sum(
            (['-c', f'write -P 7 {at + 1}M {min(256, size - at)}M']
             for at in range(0, size, 256)), []), disk_of(name))
        results[name] = {running: measure(f'{mount.dir}/{name}', running)
                         for running in (False, True)}
    if not shutil.which('virt-clone'):
        print('  virt-clone is not installed (package virtinst)', flush=True)
    others = {name: peers(name) for name in SIZES}
    for what in 'snapshot', 'revert', 'clone':
        for running in False, True:
            small, large = (results[name][running][what] for name in SIZES)
            report(named(what, running), large,
                   (f'the same, {SMALL} MiB', small))
    for what, running, other in (
            ('clone', False, 'qemu-img convert'),
            ('clone', False, 'virt-clone'),
            ('snapshot', False, 'virsh snapshot-create-as'),
            ('revert', True, 'virsh destroy; virsh start')):
        if other in others['large']:
            report(named(what, running), results['large'][running][what],
                   (other, others['large'][other]))
    for what, seconds in others['large'].items():
        report(f'{what}, {LARGE} MiB', seconds,
               (f'the same, {SMALL} MiB', others['small'][what]))
    mount.close()


main()
