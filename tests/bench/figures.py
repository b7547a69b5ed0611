"""What the benchmarks measure, as lines, as one table and as a picture.

usage: figures.py FIGURES PICTURE     a table of FIGURES; the picture is an SVG

A benchmark calls report(), which prints a line, and keeps it as a line of JSON
in the file that SBXFS_BENCH_FIGURES names. Ratios are medians against the
base's median: below 1 is less time, or less memory, than the base takes.
"""

import html
import json
import math
import os
import statistics
import sys
import time

MIB = 2**20


def timed(action):
    """The seconds that it takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


median = statistics.median


def part(samples, share):
    ordered = sorted(samples)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def spread(samples):
    """The 10th and the 90th percentile."""
    return part(samples, .1), part(samples, .9)


def shown(value, unit):
    if unit == 's':
        sizes = ('s', 1), ('ms', 1e-3), ('us', 1e-6)
    elif unit == 'B':
        sizes = ('MiB', MIB), ('KiB', 1024), ('B', 1)
    else:
        return f'{value:g}'
    name, size = next((one for one in sizes if value >= one[1]), sizes[-1])
    number = value / size
    digits = 2 if unit == 's' and name == 's' and number < 10 else 1
    return f'{number:.{0 if name == "B" else digits}f} {name}'


def shown_ratio(ratio):
    if 0 < ratio < .1:
        return f'1/{1 / ratio:.0f}'
    return f'{ratio:.2f}' if ratio < 10 else f'{ratio:.0f}'


def goal_text(figure):
    if figure.get('goal_ratio') is not None:
        return '<= ' + shown_ratio(figure['goal_ratio'])
    if figure.get('goal_value') is not None:
        return '<= ' + shown(figure['goal_value'], figure['unit'])
    return ''


def has_goal(figure):
    return bool(goal_text(figure))


def keep(figure):
    path = os.environ.get('SBXFS_BENCH_FIGURES')
    if path:
        with open(path, 'a') as file:
            file.write(json.dumps(figure) + '\n')


def report(what, samples, base=None, unit='s', at=.5, goal_ratio=None,
           goal_value=None):
    """A figure: `samples`, against those of `base`, a pair of name and samples.

    `goal_ratio` is how much of the base it is to take at most, `goal_value`
    how much in all. `at` is the part of the samples that lies below the figure,
    where that is not to be their median.
    """
    ours = median(samples) if at == .5 else part(samples, at)
    low, high = spread(samples)
    figure = {'what': what, 'unit': unit, 'ours': ours, 'low': low,
              'high': high, 'goal_ratio': goal_ratio, 'goal_value': goal_value}
    text = f'  {what:58} {shown(ours, unit):>9}'
    if len(samples) > 1:
        text += f'   {shown(low, unit)} .. {shown(high, unit)}'
    if base:
        name, others = base
        figure.update(base=name, base_median=median(others),
                      ratio=ours / median(others))
        text += f'   {shown_ratio(figure["ratio"])} of {name}'
    print(text, flush=True)
    keep(figure)


def missing(what, why, base=None, unit='s', goal_ratio=None, goal_value=None):
    """A figure that there is not."""
    why = ' '.join(why.split())
    print(f'  {what:58} not measured: {why}', flush=True)
    keep({'what': what, 'unit': unit, 'why': why, 'base': base,
          'goal_ratio': goal_ratio, 'goal_value': goal_value})


def row(figure):
    unit = figure['unit']
    cells = [figure['what'], figure.get('base') or '-']
    if 'why' in figure:
        return cells + ['-', '-', '-', '-', goal_text(figure)]
    low, high = figure['low'], figure['high']
    has_base = 'ratio' in figure
    return cells + [
        shown(figure['ours'], unit),
        f'{shown(low, unit)} .. {shown(high, unit)}' if low != high else '-',
        shown(figure['base_median'], unit) if has_base else '-',
        shown_ratio(figure['ratio']) if has_base else '-',
        goal_text(figure)]


def table(figures):
    rows = [['what', 'base', 'median', '10th .. 90th', "base's", 'ratio',
             'goal']]
    rows += [row(figure) for figure in figures]
    widths = [max(len(one[i]) for one in rows) for i in range(len(rows[0]))]
    lines = []
    for one in rows:
        lines.append('  '.join(
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(one, widths))).rstrip())
    lines.insert(1, '-' * max(len(line) for line in lines))
    lines += [f'not measured: {figure["what"]}: {figure["why"]}'
              for figure in figures if 'why' in figure]
    return '\n'.join(lines)


# The picture. Its background is its own: it is read on dark pages, too.
WIDTH, ROW, TOP = 1080, 38, 92
LEFT, RIGHT = 400, 860  # of the plot
BLUE, ORANGE, DARK, GREY, PALE = (
    '#2f6fb3', '#d9600f', '#1f2328', '#59636e', '#d8dee4')


def text_at(x, y, text, size=13, fill=DARK, anchor='start', more=''):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
            f'text-anchor="{anchor}"{more}>{html.escape(text)}</text>')


def line_at(x1, y1, x2, y2, color, width):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{color}" stroke-width="{width}"/>')


def bar_of(figure):
    """Ratio, low, high and goal of a bar, the base being 1.

    What has no base is against its goal.
    """
    value, goal = figure.get('goal_value'), figure.get('goal_ratio')
    if 'why' in figure:
        return (None, None, None, goal) if goal else None
    base = figure.get('base_median') or value
    if not base:
        return None
    if goal is None and value is not None:
        goal = value / base
    return (figure['ours'] / base, figure['low'] / base, figure['high'] / base,
            goal)


def beside(figure, x, middle):
    """What stands beside a bar: the numbers, ratio and goal."""
    numbers, ratio = 'not measured', ''
    if 'why' not in figure:
        numbers = shown(figure['ours'], figure['unit'])
    if 'ratio' in figure:
        numbers += f' : {shown(figure["base_median"], figure["unit"])}'
        ratio = shown_ratio(figure['ratio'])
    out = [text_at(x, middle - 2, numbers, 12,
                   GREY if 'why' in figure else DARK)]
    if ratio:
        out.append(text_at(x, middle + 13, ratio, 11, GREY))
    if has_goal(figure):
        out.append(text_at(x + 40 if ratio else x, middle + 13,
                           'goal ' + goal_text(figure).replace('<=', '\u2264'),
                           11, ORANGE))
    return out


def picture(figures):
    drawn = [(figure, bar_of(figure)) for figure in figures]
    # What has neither base nor goal is for the table alone.
    drawn = [(figure, bar) for figure, bar in drawn
             if bar or figure.get('base') or has_goal(figure)]
    values = [value for _, bar in drawn if bar for value in bar if value]
    first = math.floor(math.log10(min(values + [.5])))
    last = math.ceil(math.log10(max(values + [2])))

    def x_of(ratio):
        at = math.log10(ratio) if ratio > 0 else first
        at = min(max(at, first), last)
        return LEFT + (at - first) / (last - first) * (RIGHT - LEFT)

    bottom = TOP + ROW * len(drawn)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
           f'height="{bottom + 40}" viewBox="0 0 {WIDTH} {bottom + 40}" '
           'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, '
           'sans-serif">',
           f'<rect width="{WIDTH}" height="{bottom + 40}" rx="8" fill="#fff"/>',
           text_at(20, 32, 'sbxfs against its bases', 18,
                   more=' font-weight="600"'),
           f'<rect x="20" y="48" width="22" height="10" fill="{BLUE}"/>',
           text_at(48, 58, 'median ÷ base (1 = as the base; left is less)', 12,
                   GREY),
           line_at(322, 53, 344, 53, DARK, 1.5),
           text_at(350, 58, '10th to 90th percentile', 12, GREY),
           line_at(502, 46, 502, 62, ORANGE, 4),
           text_at(511, 58, 'goal, or further left', 12, GREY)]
    for decade in range(first, last + 1):
        x = x_of(10**decade)
        out.append(line_at(x, TOP - 6, x, bottom, GREY if decade == 0 else PALE,
                           1))
        label = f'1/{10**-decade}' if decade < 0 else str(10**decade)
        for y in TOP - 12, bottom + 18:
            out.append(text_at(x, y, label, 12, GREY, 'middle'))
    for number, (figure, bar) in enumerate(drawn):
        middle = TOP + ROW * number + ROW / 2
        what = figure['what'].replace('->', '\u2192')
        out.append(text_at(20, middle - 2, what))
        base = figure.get('base') or 'its goal'
        out.append(text_at(20, middle + 13, 'base: ' + base, 11, GREY))
        out += beside(figure, RIGHT + 20, middle)
        if number and has_goal(drawn[number - 1][0]) != has_goal(figure):
            out.append(line_at(20, middle - ROW / 2, WIDTH - 20,
                               middle - ROW / 2, GREY, 1))
        if not bar:
            continue
        ratio, low, high, goal = bar
        if ratio is not None:
            x, one = x_of(ratio), x_of(1)
            out.append(f'<rect x="{min(x, one):.1f}" y="{middle - 7:.1f}" '
                       f'width="{max(abs(x - one), 1.5):.1f}" height="14" '
                       f'fill="{BLUE}"/>')
            if low != high:
                out.append(line_at(x_of(low), middle, x_of(high), middle, DARK,
                                   1.5))
        if goal:
            out.append(line_at(x_of(goal), middle - 12, x_of(goal), middle + 12,
                               ORANGE, 4))
    return '\n'.join(out + ['</svg>']) + '\n'


def main(figures, path):
    with open(figures) as file:
        found = [json.loads(line) for line in file]
    found.sort(key=lambda figure: not has_goal(figure))  # else as they came
    if not found:
        sys.exit('no figures')
    with open(path, 'w') as file:
        file.write(picture(found))
    print(table(found))
    print(f'the same as a picture: {path}')


if __name__ == '__main__':
    main(*sys.argv[1:])
