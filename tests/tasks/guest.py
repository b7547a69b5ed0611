"""Runs a shell's command in a guest, by its agent, as root.

usage: guest.py DOMAIN COMMAND
"""

import base64
import json
import subprocess
import sys
import time

PATIENCE = 120


def ask(domain, command, **arguments):
    """What the agent returns; None while there is none."""
    said = subprocess.run(
        ['virsh', '-q', 'qemu-agent-command', domain, '--timeout', '30',
         json.dumps({'execute': command, 'arguments': arguments})],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return json.loads(said.stdout)['return'] if said.returncode == 0 else None


def main(domain, script):
    until = time.monotonic() + PATIENCE
    while not (begun := ask(domain, 'guest-exec', path='/bin/sh',
                            arg=['-c', script], **{'capture-output': True})):
        if time.monotonic() > until:
            sys.exit(f'the agent of {domain} does not answer')
        time.sleep(0.2)
    while not (told := ask(domain, 'guest-exec-status', pid=begun['pid']) or
               {'exited': False})['exited']:
        if time.monotonic() > until:
            sys.exit(f'{domain} goes on with: {script}')
        time.sleep(0.1)
    for stream, key in ((sys.stdout, 'out-data'), (sys.stderr, 'err-data')):
        stream.write(base64.b64decode(told.get(key, '')).decode())
    return told.get('exitcode', 1)


sys.exit(main(*sys.argv[1:]))
