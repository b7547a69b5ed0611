"""Forks of a running guest, against as many cold boots. A part of warm.py.

A snapshot with memory is taken of a guest, and clones of it go on from that
moment: a file in the memory of the guest tells. Where the first fork does not,
nothing is measured: many that boot take as long as the base.
"""

import os
import subprocess
import time

from box import read, run, write, write_soon
from figures import missing, report
from guests import BOX, all_at_once, command, make, own_memory, remove, start

SOURCE = 'source'
# Not /dev/shm: logind empties that of a user's when the last session ends.
MARK = '/run/moment'
PATIENCE = 120
LIVE = 3  # forks one after the other


class NoFork(Exception):
    """With the reason."""


def take(tag):
    """A snapshot, once it is whole."""
    path = f'{BOX}/{SOURCE}/snapshots/{tag}'
    os.mkdir(path)
    while read(path + '/kind').startswith('taking'):
        time.sleep(0.01)
    kind = read(path + '/kind').strip()
    if 'memory' not in kind:
        raise NoFork(f'the snapshot is of kind {kind}: '
                     + read(path + '/description'))
    return path


def check(name):
    if command(name, f'cat {MARK}') != 'here\n':
        raise NoFork(f'{name} does not go on from that moment')


def fork(clones, name):
    os.mkdir(f'{clones}/{name}')
    try:
        start(name)
        check(name)
    except OSError as error:
        raise NoFork(read(f'{BOX}/{name}/error') or str(error)) from error


def probe(clones, name):
    """The same, but given up as soon as it boots."""
    os.mkdir(f'{clones}/{name}')
    path = f'{BOX}/{name}'
    write_soon(path + '/status', 'start\n')
    until = time.monotonic() + PATIENCE
    while not read(path + '/ready').startswith('yes'):
        progress, error = read(path + '/progress'), read(path + '/error')
        if ', cold' in progress:
            raise NoFork('the clone boots: ' + progress)
        if error or time.monotonic() > until:
            raise NoFork(error or f'not ready within {PATIENCE} s: {progress}')
        time.sleep(0.01)
    check(name)


def sweep(names):
    for name in names:
        if os.path.isdir(f'{BOX}/{name}'):
            remove(name)


def why(error):
    """The source's own words, where it has some."""
    said = read(f'{BOX}/{SOURCE}/error') if isinstance(error, OSError) else ''
    return said or str(error)


def full_restore():
    """Bytes of its own of a guest whose whole memory was read from a file."""
    write(f'{BOX}/{SOURCE}/status', 'save\n')
    start(SOURCE)
    command(SOURCE, 'true')
    return own_memory(SOURCE)


def forks_of_snapshot(many, many_name, count):
    forks = f'{count} forks of a running guest, all by exec'
    memory, base = f'memory of its own, each of {count} forks', 'a full restore'
    goals = {'goal_value': 9} if count == 20 else {}
    names = [f'fork{i}' for i in range(count)]
    try:
        probe(take('probe') + '/clones', 'probe')
        sweep(['probe'])
        begin = time.perf_counter()
        clones = take('now') + '/clones'
        all_at_once(lambda name: fork(clones, name), names)
        took = time.perf_counter() - begin
        own = [own_memory(name) for name in names]
        sweep(names)
        report(forks, [took], (many_name, [many]), **goals)
        report(memory, own, (base, [full_restore()]), unit='B', goal_ratio=.3)
    except (NoFork, OSError, subprocess.CalledProcessError) as error:
        missing(forks, why(error), many_name, **goals)
        missing(memory, why(error), base, unit='B', goal_ratio=.3)
        sweep(['probe'] + names)


def forks_by_clones():
    what = 'mkdir clones/NEW of a running guest + start -> exec'
    names = [f'live{i}' for i in range(LIVE)]
    clones = f'{BOX}/{SOURCE}/clones'
    try:
        probe(clones, 'live')
        sweep(['live'])
        samples = []
        for name in names:
            begin = time.perf_counter()
            fork(clones, name)
            samples.append(time.perf_counter() - begin)
        report(what, samples)
    except (NoFork, OSError, subprocess.CalledProcessError) as error:
        missing(what, why(error))
    sweep(['live'] + names)


def measure(many, many_name, count):
    """`many` seconds is what `count` cold boots take."""
    make(SOURCE, 'snapshotMemory: true\n')
    start(SOURCE)
    command(SOURCE, f'echo here | sudo tee {MARK} >/dev/null')
    forks_by_clones()
    forks_of_snapshot(many, many_name, count)
    run('sh', '-c', f'rmdir {BOX}/{SOURCE}/snapshots/*', check=False)
    remove(SOURCE)
