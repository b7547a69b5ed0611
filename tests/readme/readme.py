"""README.md as a test reads it, and what of it needs no guest.

usage: readme.py     exits 1 when something in README.md is not so

A block between ``` is made of commands, unless it says of what else: ```yaml,
```text. A comment above it, which nobody sees in the page, tells what the test
does with it:

<!-- run -->           tests/readme/run runs its commands in a shell, in order
<!-- file: NAME -->    its text is that file then

In a block with prompts, lines that begin with "$ " are commands, and the others
what they print; in one without every line is a command. Commands of blocks that
are not run are in tests/readme/elsewhere, each with the reason.
"""

import html
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PICTURE = os.path.join(HERE, 'session.svg')


class Block:
    def __init__(self, line, kind, mark, lines):
        self.line, self.kind, self.mark, self.lines = line, kind, mark, lines

    @property
    def runs(self):
        return self.mark == 'run'

    def commands(self):
        """Pairs of a command and the lines that it prints."""
        if self.kind:
            return []
        prompts = any(line.startswith('$ ') for line in self.lines)
        found = []
        for line in self.lines:
            if found and found[-1][0].endswith('\\'):
                found[-1][0] += '\n' + line.removeprefix('> ')
            elif line.startswith('$ ') or not prompts:
                if line.strip():
                    found.append([line.removeprefix('$ '), []])
            else:
                found[-1][1].append(line)
        return found


def text():
    with open(os.path.join(ROOT, 'README.md')) as file:
        return file.read()


def blocks():
    found, mark, inside = [], '', None
    for number, line in enumerate(text().split('\n'), 1):
        if inside is not None:
            if line == '```':
                found.append(Block(*inside))
                inside = None
            else:
                inside[3].append(line)
        elif line.startswith('```'):
            inside = [number, line[3:], mark, []]
            mark = ''
        elif match := re.fullmatch(r'<!-- (.*) -->', line):
            mark = match[1]
        elif line.strip():
            mark = ''
    return found


def bare(command):
    """Without the comment at its end."""
    return re.sub(r'\s+#(\s.*)?$', '', command).strip()


def elsewhere():
    """Commands that are not run, and why."""
    found, command = {}, None
    with open(os.path.join(HERE, 'elsewhere')) as file:
        for line in file:
            if line.startswith('#') or not line.strip():
                continue
            if line.startswith('  '):
                found[command] += ' ' + line.strip()
            else:
                command = line.strip()
                found[command] = ''
    return found


def wrong_commands():
    listed = elsewhere()
    seen = set()
    for block in blocks():
        for command, _ in block.commands():
            command = bare(command)
            if not block.runs and command not in listed:
                yield (f'line {block.line}: "{command}" is neither run nor in '
                       'tests/readme/elsewhere')
            if not block.runs:
                seen.add(command)
    for command, reason in listed.items():
        if command not in seen:
            yield f'tests/readme/elsewhere: README.md has no "{command}"'
        if not reason:
            yield f'tests/readme/elsewhere: "{command}" has no reason'


def sources():
    """All texts in the sources, as one."""
    found = ''
    for top in 'fs', 'backend', 'mount-helper':
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            for name in names:
                if name.endswith(('.cc', '.h')) or name == 'sandbox':
                    with open(os.path.join(folder, name)) as file:
                        found += file.read()
    # Parts of a text that is broken over lines.
    found = re.sub(r'"\s*\n\s*"', '', found)
    found = re.sub(r'" \\\n\s*"', ' ', found)
    return found.replace('\\"', '"')


def sentences():
    """The left column of the table of what a user sees."""
    part = text().split('\n## When something fails\n')[1].split('\n## ')[0]
    for line in part.split('\n'):
        if line.startswith('| `'):
            # Files and options are named in it, too.
            for part in re.findall(r'`([^`]+)`', line.split(' | ')[0]):
                if part[0] not in '.-':
                    yield part


def wrong_sentences():
    known = sources()
    count = 0
    for sentence in sentences():
        count += 1
        # A verb of status is put before a reason from elsewhere.
        rest = re.sub(r'^Cannot (\w+)', lambda match: '' if
                      f'"{match[1]}"' in known else match[0], sentence)
        # What stands for something else: names, numbers, what is cut.
        for part in re.split(r"…|'[^']*'|\b[A-Z]+\b|: ", rest):
            part = part.strip(' ().:')
            if len(part) < 3 or part in SYSTEM:
                continue
            if part not in known:
                yield f'no source says "{part}", of "{sentence}"'
    if count < 10:
        yield f'{count} sentences were found under "When something fails"'


# strerror(3)'s, not ours.
SYSTEM = {'Transport endpoint is not connected'}


def wrong_links():
    for target in re.findall(r'\]\(([^)#]+)\)', text()):
        if '://' not in target and not os.path.exists(
                os.path.join(ROOT, target)):
            yield f'there is no {target}'


def wrong_picture():
    """It shows the commands of the first block that is run, in order."""
    if not os.path.exists(PICTURE):
        yield 'there is no tests/readme/session.svg; tests/readme/run --picture'
        return
    with open(PICTURE) as file:
        shown = html.unescape(re.sub(r'<[^>]*>', '', file.read()))
    at = 0
    for command, _ in next(block for block in blocks() if block.runs).commands():
        at = shown.find('$ ' + bare(command), at)
        if at < 0:
            yield (f'tests/readme/session.svg does not show "{bare(command)}"; '
                   'tests/readme/run --picture makes it anew')
            return


def main():
    wrong = [*wrong_commands(), *wrong_sentences(), *wrong_links(),
             *wrong_picture()]
    for line in wrong:
        print('README.md:', line)
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
