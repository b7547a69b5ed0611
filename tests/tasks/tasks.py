"""The tasks beside this file, and how their fragments are counted.

A task is a file NN-name: a line `# title`, lines `# key: value`, and sections
of shell, each below a line `## section`:

  tree    what is typed in a mount of sbxfs
  virsh   what is typed in the directory of libvirt's default pool
  check   whether it was truly done, in either case the same
  before  what is to be there first, and after, what is to be taken away

`## check tree` and its like are for one side alone. Keys: `guest: yes` of those
that are about the booted guest `box`, `after: NN-name ...` for what else must be
done by then, and `fails: yes` where the commands are to be refused.

Commands are the simple commands of the shell: each of a pipeline, of a list, of
a loop's or condition's parts, and of a substitution, but neither assignments nor
what is inside quotes for another shell, nor a here-document. Characters are
those of all lines without comments, and without blanks at their ends.
"""

import dataclasses
import pathlib
import re

HERE = pathlib.Path(__file__).parent
SIDES = ('tree', 'virsh')
RESERVED = {'!', '{', '}', 'do', 'done', 'elif', 'else', 'fi', 'if', 'then',
            'until', 'while'}


class Fragment:
    """What is typed: its commands by name, its text without comments."""

    def __init__(self, text):
        self.names = []
        self._text, self._at, self._comments, self._documents = text, 0, [], []
        self._commands('')
        bare = ''
        begin = 0
        for first, last in self._comments:
            bare += text[begin:first]
            begin = last
        bare += text[begin:]
        self.lines = [line.strip() for line in bare.split('\n') if line.strip()]
        self.characters = sum(map(len, self.lines))
        self.commands = len(self.names)

    def _next(self, count=1):
        return self._text[self._at:self._at + count]

    def _past(self, end):
        """Goes on behind the next `end`."""
        self._at = self._text.index(end, self._at) + len(end)

    def _commands(self, end):
        """A list of commands up to `end`, which is that of a substitution."""
        fresh = True  # where a command may begin
        names = False  # what a loop goes through
        while self._at < len(self._text):
            here = self._next()
            if here == end:
                self._at += 1
                return
            if here == '\n':
                self._at += 1
                self._here_documents()
                fresh, names = True, False
            elif here in ' \t':
                self._at += 1
            elif here == '#':
                begin = self._at
                while self._next() not in ('\n', ''):
                    self._at += 1
                self._comments.append((begin, self._at))
            elif self._redirection():
                pass
            elif here in ';&|()':
                self._at += 1
                fresh, names = True, False
            else:
                word = self._word()
                if names or not fresh or re.match(r'\w+=', word):
                    continue
                if word == 'for':
                    names = True
                elif word not in RESERVED:
                    self.names.append(word)
                    fresh = False
        if end:
            raise ValueError(f'no {end} in: {self._text}')

    def _redirection(self):
        """Passes one, with the word behind it; of `<(...)` the bracket alone."""
        found = re.compile(r'\d*(<<|[<>]&|>>|<>|[<>])').match(self._text,
                                                             self._at)
        if not found:
            return False
        self._at = found.end()
        if found[1] in '<>' and self._next() == '(':
            self._at += 1
            self._commands(')')
            return True
        while self._next() == ' ':
            self._at += 1
        word = self._word()
        if found[1] == '<<':
            self._documents.append(word.strip('\'"'))
        return True

    def _here_documents(self):
        for end in self._documents:
            while True:
                line, found, _ = self._text[self._at:].partition('\n')
                self._at += len(line) + len(found)
                if line.strip() == end:
                    break
                if not found:
                    raise ValueError(f'no {end} in: {self._text}')
        self._documents = []

    def _word(self):
        begin = self._at
        while self._at < len(self._text) and self._next() not in ' \t\n;&|()<>':
            self._piece()
        return self._text[begin:self._at]

    def _piece(self):
        here = self._next()
        if here == '\\':
            self._at += 2
        elif here == "'":
            self._at += 1
            self._past("'")
        elif here == '"':
            self._at += 1
            while self._next() != '"':
                self._piece()
            self._at += 1
        elif self._next(2) == '$(':
            self._at += 2
            self._commands(')')
        elif self._next(2) == '${':
            self._past('}')
        elif here == '`':
            raise ValueError('write $(...)')
        else:
            self._at += 1


@dataclasses.dataclass
class Task:
    name: str
    title: str
    keys: dict
    sections: dict

    def section(self, kind, side):
        """What this side has of that, and what all have."""
        return '\n'.join(self.sections.get(key, '')
                         for key in (f'{kind} {side}', kind))

    def fragment(self, side):
        return Fragment(self.sections[side])


def read(path):
    head, *parts = re.split(r'^## ', path.read_text(), flags=re.M)
    lines = [line[2:] for line in head.splitlines()]
    keys = dict(re.findall(r'^# (guest|after|fails): (.+)$', head, flags=re.M))
    sections = {}
    for part in parts:
        name, _, text = part.partition('\n')
        sections[name] = text.strip('\n')
    return Task(path.name, lines[0], keys, sections)


def tasks():
    return [read(path) for path in sorted(HERE.glob('[0-9][0-9]-*'))]
