# SPDX-License-Identifier: GPL-2.0
"""Makes a table and a JSON file of the figures that ioasid_bench measured: report_ids.py FILE...

The figures that missed their targets are first in the table.
"""

import json
import sys
from pathlib import Path

# Targets: the upper limit of an operation's cost, as a multiple of its cost with an XArray.
TARGETS = {"alloc+free": 1.5, "find+get": 1.0}


def read(path):
    """Returns {(operation, ids held): {contender: figure}}, in the order of the file."""
    figures = {}
    for line in path.read_text().splitlines():
        contender, operation, held, value = line.split("\t")
        figures.setdefault((operation, int(held)), {})[contender] = int(value)
    return figures


def rows(figures):
    """Yields name, figures, ratio, target and verdict of each operation."""
    for (operation, held), by in figures.items():
        ratio = by["ioasid"] / by["xarray"]
        target = TARGETS.get(operation.partition(",")[0].partition(" on ")[0])
        met = None if target is None else ratio <= target
        name = f"{operation}, {held:,} held"
        yield {"name": name, **by, "ratio": ratio, "target": target, "met": met}


def table(title, lines):
    """Yields the lines of the table."""
    yield f"{title:<40} {'XArray':>8} {'IDA':>8} {'ioasid':>8} {'ioasid/XArray':>14}  target"
    for row in lines:
        ida = "" if row.get("ida") is None else f"{row['ida']:,}"
        target = "" if row["target"] is None else f"<= {row['target']}"
        verdict = "  MISSED" if row["met"] is False else ""
        figures = f"{row['xarray']:>8,} {ida:>8} {row['ioasid']:>8,} {row['ratio']:>14.2f}"
        yield f"{row['name']:<40} {figures}  {target}{verdict}".rstrip()


def main(paths):
    for path in map(Path, paths):
        lines = list(rows(read(path)))
        unit = "nanoseconds" if path.name.endswith("parallel") else "instructions, if not said otherwise"
        text = "\n".join(table(unit, sorted(lines, key=lambda row: row["met"] is not False)))
        path.with_suffix(".txt").write_text(text + "\n")
        path.with_suffix(".json").write_text(json.dumps(lines, indent=2) + "\n")
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
