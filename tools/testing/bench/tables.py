# SPDX-License-Identifier: GPL-2.0
"""Tables in reStructuredText, and their places in a page."""

import sys


def number(value):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"


def table(head, rows):
    """Returns a simple table in reStructuredText, where an empty first cell must be a backslash.

    It needs no package (tabulate), so that this script runs on the host.
    """
    rows = [[cell or "\\ " if at == 0 else cell for at, cell in enumerate(row)] for row in rows]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    rule = " ".join("=" * width for width in widths)

    def line(row):
        return " ".join([row[0].ljust(widths[0]),
                         *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()

    return "\n".join([rule, line(head), rule, *map(line, rows), rule])


def replace(page, contents):
    """Replaces the text between the 'begin' and 'end' comments of each name in the file PAGE."""
    text = page.read_text()
    for name, content in contents.items():
        begin, end = f".. begin {name}\n", f".. end {name}\n"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            sys.exit(f"{page.name} has no '.. begin {name}' and '.. end {name}'")
        text = f"{before}{begin}\n{content}\n\n{end}{after}"
    page.write_text(text)
