"""The first listing of a mount with many domains, against libvirt's own.

usage: tests/bench/run mount, which runs: mount.py BIN-DIRECTORY

SBXFS_BENCH_DOMAINS is how many domains there are (4096), SBXFS_BENCH_ROUNDS
how often they are listed (5). One of them is a sandbox that sbxfs made; the
others are defined with the same XML, metadata and all, under names and UUIDs of
their own, and have volumes of their own, links to the first's. The base is one
process that lists all domains and reads the XML of each.
"""

import os
import re
import subprocess
import sys
import time
import uuid

from box import (BIN, BLANK, URI, VIRSH, WORK, defaults, idle_wakes, run, tree,
                 write)
from figures import report, timed

COUNT = int(os.environ.get('SBXFS_BENCH_DOMAINS', '4096'))
ROUNDS = int(os.environ.get('SBXFS_BENCH_ROUNDS', '5'))
PATIENCE = 600


def volumes():
    """The pool's directory."""
    return re.search('<path>(.*)</path>',
                     run(*VIRSH, 'pool-dumpxml', 'sbxfs'))[1]


def copies(name):
    """Defines all but the first; the names of all."""
    xml = run(*VIRSH, 'dumpxml', name)
    old = re.search('<uuid>(.*)</uuid>', xml)[1]
    pool = volumes()
    owned = [one for one in os.listdir(pool) if one.startswith(old)]
    names = [name]
    with subprocess.Popen(VIRSH, stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.DEVNULL) as shell:
        for number in range(1, COUNT):
            new, path = str(uuid.uuid4()), f'{WORK}/{number}.xml'
            names.append(f'copy{number:05}')
            for one in owned:
                os.link(f'{pool}/{one}', f'{pool}/{one.replace(old, new)}')
            write(path, re.sub(f'<name>{name}</name>',
                               f'<name>{names[-1]}</name>',
                               xml.replace(old, new)))
            shell.stdin.write(f'define {path}\n')
        shell.stdin.close()
    run(*VIRSH, 'pool-refresh', 'sbxfs')
    return names


def first_listing(wanted):
    """Mounts, and lists until all are there."""
    begin = time.monotonic()
    mount = tree(options='loglevel=error,cold')
    while not wanted <= set(os.listdir(mount.dir)):
        gone = time.monotonic() - begin
        if gone > PATIENCE:
            sys.exit(f'  {len(os.listdir(mount.dir))} of {COUNT} within '
                     f'{PATIENCE} s')
        # Often enough, and yet no load of its own.
        time.sleep(max(gone / 50, 0.005))
    return mount


def main():
    os.mkdir(WORK)
    mount = tree()
    write(f'{mount.dir}/.host/images/blank', BLANK)
    write(f'{mount.dir}/.host/defaults.yaml', defaults(64))
    os.mkdir(f'{mount.dir}/first')
    mount.close()
    mount = tree(options='loglevel=error,cold')
    one = mount.memory()
    mount.close()
    begin = time.perf_counter()
    names = copies('first')
    print(f'  {COUNT} domains: one sandbox and {COUNT - 1} definitions like '
          f'its own, made in {time.perf_counter() - begin:.0f} s', flush=True)
    listings, others = [], []
    for _ in range(ROUNDS):
        others.append(timed(lambda: run(f'{BIN}/bench_listing', URI)))
        begin = time.perf_counter()
        mount = first_listing(set(names))
        listings.append(time.perf_counter() - begin)
        if len(listings) == ROUNDS:
            many = mount.memory()
            idle_wakes(mount)
        mount.close()
    if run(f'{BIN}/bench_listing', URI) != str(COUNT):
        sys.exit('  libvirt has other domains, too')
    report(f'mount with {COUNT} domains -> first complete ls', listings,
           ('a list by a libvirt client', others), goal_ratio=2)
    report(f'daemon memory a sandbox, of {COUNT}', [(many - one) / COUNT],
           unit='B', goal_value=8 * 1024)


main()
