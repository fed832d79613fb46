# SPDX-License-Identifier: GPL-2.0
"""Makes tables and a JSON file of the figures of four ways to a DMA address space.

usage: report_ways.py [--whole] FILE

With --whole, the file has all figures, and a JSON file is written beside it. Otherwise only FILE.new
has some. The figures for which another way takes less than the Rust modules are printed first.
"""

import argparse
import json
import statistics
from pathlib import Path

from report import SAME, number, spread

# The ways that are compared, by the name of their columns.
WAYS = {"c": "C type 1", "rust": "Rust type 1", "compat-c": "compat", "iommufd-c": "IOMMUFD"}
# IOMMUFD below our vfio.ko, to compare with the last two.
OURS = {"compat-rust": "compat, Rust", "iommufd-rust": "IOMMUFD, Rust"}


def read(path):
    """Returns the samples of all rounds, by way and name of the figure."""
    ways = {way: {} for way in (*WAYS, *OURS)}
    way = None
    for line in path.read_text().splitlines():
        if line.startswith("stack "):
            way = ways[line.removeprefix("stack ")]
        elif "\t" in line:
            name, samples = line.split("\t")
            way.setdefault(name, []).extend(map(int, samples.split()))
    return ways


def rows(ways):
    """Yields a dictionary for each figure: the median of each way, and the largest spread."""
    for name in dict.fromkeys(name for figures in ways.values() for name in figures):
        found = {way: figures[name] for way, figures in ways.items() if name in figures}
        row = {"name": name, **dict.fromkeys(ways)}
        row.update((way, statistics.median(samples)) for way, samples in found.items())
        row["spread"] = round(max(map(spread, found.values())), 4)
        yield row


def least(row):
    """Returns the ways that take least, without differences that are too small to count."""
    figures = {way: row[way] for way in WAYS if row[way] is not None}
    bound = min(figures.values(), default=0) * (1 + SAME)
    return [way for way, figure in figures.items() if figure <= bound]


def is_behind(row):
    """Returns whether another way takes less than ours."""
    return row["rust"] is not None and "rust" not in least(row)


def cell(row, way):
    if row[way] is None:
        return ""
    return number(row[way]) + ("*" if way in least(row) else " ")


def table(title, lines):
    """Yields the lines of the table."""
    names = (*WAYS.values(), *OURS.values())
    yield f"{title:<66} " + " ".join(f"{name:>15}" for name in names) + "  spread"
    for row in lines:
        cells = [cell(row, way) for way in WAYS]
        cells += ["" if row[way] is None else number(row[way]) for way in OURS]
        yield f"{row['name']:<66} " + " ".join(f"{text:>15}" for text in cells) + f"  {row['spread']:.1%}"


def report(lines):
    """Yields the lines of two tables: where another way takes less than ours, and the others."""
    behind = [row for row in lines if is_behind(row)]
    yield f"In {len(behind)} of {len(lines)} figures another way takes less than ours; * has the least."
    for title, chosen in (("another way takes less", behind),
                          ("others", [row for row in lines if row not in behind])):
        if chosen:
            yield ""
            yield from table(f"instructions, if not said otherwise: {title}", chosen)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    lines = list(rows(read(args.file if args.whole else args.file.with_suffix(".new"))))
    text = "\n".join(report(lines))
    if args.whole:
        args.file.with_suffix(".json").write_text(json.dumps(lines, indent=2) + "\n")
    args.file.with_suffix(".txt" if args.whole else ".new.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
