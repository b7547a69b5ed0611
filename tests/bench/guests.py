"""Debian guests of one processor and 512 MiB, for the benchmarks of them."""

import concurrent.futures
import json
import os
import time

from box import VIRSH, WORK, read, run, write

BOX = WORK + '/box'
CONFIG = 'memory: 512MiB\ncpus: 1\n'


def command(name, text, user=None):
    """A job's output."""
    job = f'{BOX}/{name}/exec/bench'
    os.mkdir(job)
    if user:
        write(job + '/user', user)
    write(job + '/command', text + '\n')
    output = read(job + '/stdout')
    os.rmdir(job)
    return output


def make(name, more=''):
    os.mkdir(f'{BOX}/{name}')
    write(f'{BOX}/{name}/config.yaml', CONFIG + more)


def start(name):
    write(f'{BOX}/{name}/status', 'start\n')


def remove(name):
    write(f'{BOX}/{name}/status', 'kill\n')
    os.rmdir(f'{BOX}/{name}')


def agent(name, words):
    """What a guest's agent returns; None when it does not answer."""
    reply = run(*VIRSH, 'qemu-agent-command', name, json.dumps(words),
                check=False)
    return json.loads(reply)['return'] if reply else None


def by_virsh(name):
    """A cold boot up to the first command that the agent has run."""
    begin = time.perf_counter()
    run(*VIRSH, 'start', name)
    while True:
        pid = agent(name, {'execute': 'guest-exec',
                           'arguments': {'path': '/bin/true'}})
        if pid and (agent(name, {'execute': 'guest-exec-status',
                                 'arguments': pid}) or {}).get('exited'):
            return time.perf_counter() - begin
        time.sleep(0.1)


def all_at_once(action, names):
    """What it gives for each."""
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(action, names))


def own_memory(name):
    """Bytes that its QEMU shares with nobody."""
    pid = run('pgrep', '-f', f'guest={name},').split()[0]
    return sum(int(line.split()[1]) * 1024
               for line in read(f'/proc/{pid}/smaps_rollup').splitlines()
               if line.startswith('Private_'))
