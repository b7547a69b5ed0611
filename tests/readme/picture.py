"""A terminal's session as a picture in SVG."""

import html

WIDTH, LINE, LEFT, TOP = 8.43, 19, 18, 46
DIM, BRIGHT, PROMPT, TEXT, TIME = ('#8b949e', '#f0f6fc', '#7ee787', '#c9d1d9',
                                   '#d2a8ff')


def line_of(y, parts):
    """One line, of pairs of a colour and a text; blanks are kept."""
    spans = ''.join(f'<tspan fill="{colour}">{html.escape(text)}</tspan>'
                    for colour, text in parts)
    return f'<text x="{LEFT}" y="{y}" xml:space="preserve">{spans}</text>'


def draw(title, steps):
    """Of steps: a command, its comment, the lines it printed, its seconds."""
    rows, columns = [], 0
    for command, comment, printed, seconds in steps:
        shown = command + (f'  {comment}' if comment else '')
        took = f'  {seconds:.1f} s' if seconds >= .1 else ''
        rows.append([(PROMPT, '$ '), (BRIGHT, command),
                     (DIM, shown[len(command):]), (TIME, took)])
        rows += [[(TEXT, line)] for line in printed]
        columns = max([columns, 2 + len(shown + took), *map(len, printed)])
    width = round(2 * LEFT + columns * WIDTH)
    height = TOP + len(rows) * LINE + 8
    lines = [line_of(TOP + 14 + i * LINE, row) for i, row in enumerate(rows)]
    dots = ''.join(f'<circle cx="{20 + 18 * i}" cy="18" r="5.5" fill="{colour}"/>'
                   for i, colour in enumerate(('#ff5f57', '#febc2e', '#28c840')))
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" font-size="14" '
        'font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'
        'DejaVu Sans Mono,monospace">',
        f'<title>{html.escape(title)}</title>',
        f'<rect width="{width}" height="{height}" rx="9" fill="#0d1117"/>',
        dots, *lines, '</svg>', ''])
