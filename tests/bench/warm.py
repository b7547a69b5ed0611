"""First starts from a memory template against cold boots of the same image.

usage: tests/bench/run warm, which runs: warm.py BIN-DIRECTORY

Debian guests of one processor and 512 MiB on a libvirtd of its own. The base is
virsh start of the same definition up to the first command that its agent has
run. SBXFS_BENCH_ROUNDS is how many go on from the template one after the other
(5), SBXFS_BENCH_MANY how many at once (20). What many take is against so many
times the one boot; SBXFS_BENCH_FULL=1 really boots them all at once. Then the
same with bare calls of libvirt's, and with forks of a running guest (forks.py).
"""

import json
import os
import re
import shutil
import subprocess
import time

import forks
from box import BIN, URI, VIRSH, WORK, read, run, tree, write
from figures import missing, report, timed
from guests import (BOX, all_at_once, by_virsh, command, make, own_memory,
                    remove, start)

IMAGE = os.environ['SBXFS_TEST_IMAGE']
ROUNDS = int(os.environ.get('SBXFS_BENCH_ROUNDS', '5'))
MANY = int(os.environ.get('SBXFS_BENCH_MANY', '20'))
FULL = os.environ.get('SBXFS_BENCH_FULL') == '1'
WHO = ('hostname; cat /etc/machine-id /sys/class/net/eth0/address '
       '/etc/ssh/ssh_host_ed25519_key.pub; '
       "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '; date +%s")


def box(environment=None):
    return tree('box', 'trash=0,start_timeout=1200', environment,
                open(WORK + '/log', 'a'))


def first_command(name):
    """From nothing to the first command's end.

    Also when it was ready before, and when its start began.
    """
    begin = time.perf_counter()
    make(name)
    began = time.perf_counter() - begin
    start(name)
    ready = time.perf_counter() - begin
    command(name, 'true')
    return time.perf_counter() - begin, ready, began


def measure_cold():
    """The base: seconds of a cold boot by virsh, and of MANY."""
    make('base')
    base = by_virsh('base')
    report('cold boot by virsh to the first command by the agent', [base])
    remove('base')
    if not FULL:
        return base, MANY * base, f'{MANY} x a cold boot by virsh'
    names = [f'cold{i}' for i in range(MANY)]
    for name in names:
        make(name)
    begin = time.perf_counter()
    all_at_once(by_virsh, names)
    took = time.perf_counter() - begin
    for name in names:
        remove(name)
    return base, took, f'{MANY} cold boots by virsh at once'


def make_template(base):
    done, ready, _ = first_command('first')
    report('cold boot by sbxfs to the first command by exec', [done],
           ('cold boot by virsh', [base]))
    report('cold boot by sbxfs to ready', [ready])
    remove('first')
    begin = time.perf_counter()
    while True:
        templates = read(BOX + '/.host/warm')
        if 'MiB, ' in templates and 'being made' not in templates:
            break
        time.sleep(0.5)
    report('its template, in the background', [time.perf_counter() - begin])


def by_ssh(name):
    make(name)
    start(name)
    run('ssh', '-F', BOX + '/.host/ssh_config', '-o', 'BatchMode=yes',
        f'sbx-{name}', 'true')


def measure_one(base):
    """One after the other; seconds of each start alone."""
    samples, ssh, own = [], [], []
    for i in range(ROUNDS):
        name = f'one{i}'
        samples.append(first_command(name))
        own.append(own_memory(name))
        remove(name)
        ssh.append(timed(lambda: by_ssh(name + 's')))
        remove(name + 's')
    cold = ('cold boot by virsh', [base])
    done, ready, began = zip(*samples)
    report('mkdir + start -> first command by exec, from a template', done,
           cold, goal_ratio=1 / 60)
    report('mkdir + start -> ssh true, from a template', ssh, cold,
           goal_ratio=1 / 22)
    report('mkdir + start -> ready, from a template', ready, cold)
    report('mkdir and config.yaml of that', began)
    report('memory of its own after a command', own, unit='B')
    return [all_of - before for all_of, before in zip(ready, began)]


def measure_save():
    """Of one that has run a command: how long it rests and comes back."""
    names = [f'saved{i}' for i in range(ROUNDS)]
    saves, starts = [], []
    for name in names:
        first_command(name)
        saves.append(timed(
            lambda at=name: write(f'{BOX}/{at}/status', 'save\n')))
        starts.append(timed(lambda at=name: start(at)))
        remove(name)
    report('save of a guest of 512 MiB', saves)
    report('start of that', starts)


def measure_many(base, base_name):
    names = [f'many{i}' for i in range(MANY)]
    begin = time.perf_counter()
    all_at_once(first_command, names)
    took = time.perf_counter() - begin
    report(f'{MANY} at once from a template, all by exec', [took],
           (base_name, [base]))
    who = []
    late = 0
    for name in names:
        asked = time.time()
        who.append(command(name, WHO, 'root').split('\n'))
        late = max(late, asked - 1 - int(who[-1][5]),
                   int(who[-1][5]) - time.time())
    for i, what in enumerate(('host name', 'machine id', 'MAC address',
                              'host key', 'random bytes')):
        print(f'    {what}: {len({w[i] for w in who})} different', flush=True)
    print(f'    clocks: {late:.1f} s off at most')
    report(f'memory of its own, each of {MANY}',
           [own_memory(name) for name in names], unit='B')
    for name in names:
        remove(name)


def capture(name):
    """Starts one, and keeps what libvirt was given: image and command.

    The image is linked while it is there; the command is in libvirt's log.
    """
    log = WORK + '/calls.log'
    mount = box({'LIBVIRT_DEBUG': '1',
                 'LIBVIRT_LOG_FILTERS': '1:libvirt-qemu 1:libvirt-domain',
                 'LIBVIRT_LOG_OUTPUTS': f'1:file:{log}'})
    try:
        make(name)
        uuid = run(*VIRSH, 'domuuid', name)
        pool = re.search('<path>(.*)</path>',
                         run(*VIRSH, 'pool-dumpxml', 'sbxfs'))[1]
        kept = pool + '/../bare'  # a link is of the same file system
        starting = subprocess.Popen(
            ['sh', '-c', f'echo start > {BOX}/{name}/status'])
        while starting.poll() is None and not os.path.exists(kept + '.image'):
            for volume in os.listdir(pool):
                if volume.startswith(uuid + '.memory.'):
                    os.link(f'{pool}/{volume}', kept + '.image')
            time.sleep(0.001)
        starting.wait()
        write(f'{BOX}/{name}/status', 'kill\n')
    finally:
        mount.close()
    sent = re.search(r'virDomainQemuAgentCommand:.*? cmd=(.*"guest-exec".*), '
                     'timeout=', read(log))
    if not sent:
        raise OSError("libvirt's log has no guest-exec")
    write(kept + '.command', sent[1])
    return kept + '.image', kept + '.command'


def bare(name, image, words):
    """One more start of that guest, while no sbxfs is there to attend to it."""
    disk = run(*VIRSH, 'domblklist', name).split('vda', 1)[1].split()[0]
    if not disk.startswith('/'):
        disk = run(*VIRSH, 'vol-path', disk, '--pool', 'sbxfs')
    under = json.loads(run('qemu-img', 'info', '--output=json', disk))
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b',
        under['full-backing-filename'], disk)
    try:
        took = run(f'{BIN}/bench_bare', URI, name, image, words)
    finally:
        run(*VIRSH, 'destroy', name, check=False)
    return float(took.split()[0])


def measure_bare(starts):
    """No sbxfs is mounted when it begins, nor when it ends."""
    what = "start -> ready, from a template (sbxfs's own part)"
    name, base = 'bare', 'bare libvirt calls'
    try:
        kept = capture(name)
        calls = [bare(name, *kept) for _ in range(ROUNDS)]
    except (subprocess.CalledProcessError, OSError) as error:
        missing(what, f'{error} {getattr(error, "stderr", "")}', base,
                goal_ratio=1.15)
        return
    report(what, starts, (base, calls), goal_ratio=1.15)


def main():
    os.makedirs(WORK)
    os.environ.update(HOME=WORK, XDG_DATA_HOME=WORK + '/data')
    mount = box()
    shutil.copy(IMAGE, BOX + '/.host/images/debian-12')
    one, many, many_name = measure_cold()
    make_template(one)
    starts = measure_one(one)
    measure_save()
    mount.close()
    measure_bare(starts)
    mount = box()
    measure_many(many, many_name)
    forks.measure(many, many_name, MANY)
    mount.close()


if __name__ == '__main__':
    main()
