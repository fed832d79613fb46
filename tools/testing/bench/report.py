# SPDX-License-Identifier: GPL-2.0
"""Makes a table of the figures that guest-bench measured: report.py [--whole] FILE...

The figures that missed their targets are printed first.

With --whole, the files have all figures of both sides, and a JSON file is written beside each.
Otherwise FILE.new has some figures; those of a side that was not measured come from FILE, if it
exists.
"""

import argparse
import json
import re
import statistics
from pathlib import Path

# Targets: the upper limit of a figure, as a multiple of the figure of the C modules; or 0, if the
# figure itself must be 0. None means no target. The first pattern that matches applies. Figures
# that match no pattern have the target DEFAULT: not slower than C.
LARGE = r"(1 GiB|64 times 16 MiB) of"
TARGETS = {
    rf"{LARGE} (scattered 4 KiB pages|4 KiB pages|memfd): map": 0.75,
    rf"{LARGE} (scattered 4 KiB pages|4 KiB pages|memfd): (unmap|UNMAP_ALL|close)": 0.6,
    rf"{LARGE} (THP|hugetlb): map": 0.6,
    rf"{LARGE} (THP|hugetlb): (unmap|UNMAP_ALL|close)": 0.1,
    r"pin_pages\(512\).*: pin\+unpin": 0.2,
    r"GET_BITMAP of one mapping among 10,000": 0.05,
    r"worst .* while 2 GiB are mapped": 0.01,
    r"bytes a pinned page": 0.25,
    r".*: page-table pages left by unmap": 0,
    # The kernel does a part of the work of a removal during the next creation, and the reverse.
    r".*: (create|remove)": None,
    # Both sides use the same C driver.
    r"(mtty-1|mdpy-vga): .*": None,
}
DEFAULT = 1.0
# Smaller differences are ignored.
SAME = 0.005
# The speedup from one to two threads, on the same modules, is computed from these figures.
ONE_THREAD = "512 MiB of 4 KiB pages: one thread"
TWO_THREADS = "512 MiB of 4 KiB pages: two threads"
SPEEDUP = 1.7


def read(path):
    """Returns the samples of all rounds, by side and name of the figure."""
    sides = {"c": {}, "rust": {}}
    side = None
    for line in path.read_text().splitlines():
        if line.startswith("stack "):
            side = sides[line.removeprefix("stack ")]
        elif "\t" in line:
            name, samples = line.split("\t")
            side.setdefault(name, []).extend(map(int, samples.split()))
    return sides


def complete(new, old):
    """Returns NEW, with the figures of OLD for a side that has none."""
    for side, figures in new.items():
        if not figures:
            names = [name for other in new.values() for name in other]
            figures.update((name, old[side][name]) for name in names if name in old[side])
    return new


def spread(samples):
    """Returns the range of the samples as a fraction of their median."""
    median = statistics.median(samples)
    return (max(samples) - min(samples)) / median if median else 0.0


def target_of(name):
    return next((most for names, most in TARGETS.items() if re.fullmatch(names, name)), DEFAULT)


def rows(sides):
    """Yields a dictionary for each figure: medians, spreads, ratio, target and verdict."""
    names = dict.fromkeys([*sides["c"], *sides["rust"]])
    for name in names:
        row = {"name": name, "c": None, "rust": None, "c_spread": None, "rust_spread": None}
        for side in ("c", "rust"):
            if samples := sides[side].get(name):
                row[side] = statistics.median(samples)
                row[f"{side}_spread"] = round(spread(samples), 4)
        yield judge(row)
    if all(name in figures for name in (ONE_THREAD, TWO_THREADS) for figures in sides.values()):
        yield speedup(sides)


def judge(row):
    """Adds ratio, target and verdict to the row."""
    row["ratio"] = row["rust"] / row["c"] if row["c"] and row["rust"] is not None else None
    row["target"] = target_of(row["name"])
    value = row["rust"] if row["target"] == 0 else row["ratio"]
    unknown = row["target"] is None or value is None
    row["met"] = None if unknown else value < row["target"] + SAME
    return row


def speedup(sides):
    """Returns the row with the speedup from one to two threads."""
    c, rust = (statistics.median(sides[side][ONE_THREAD]) / statistics.median(sides[side][TWO_THREADS])
               for side in ("c", "rust"))
    return {"name": "times as fast with two threads", "c": c, "rust": rust, "c_spread": None,
            "rust_spread": None, "ratio": rust / c, "target": f"rust >= {SPEEDUP}", "met": rust >= SPEEDUP}


def number(value):
    if value is None:
        return "?"
    return f"{value:,.2f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def percent(value):
    return "" if value is None else f"{value:.1%}"


def table(title, lines):
    """Yields the lines of the table."""
    yield f"{title:<60} {'C':>14} {'spread':>7} {'Rust':>14} {'spread':>7} {'Rust/C':>8}  target"
    for row in lines:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        target = row["target"]
        target = "" if target is None else target if isinstance(target, str) else f"<= {target}"
        verdict = "  MISSED" if row["met"] is False else ""
        yield (f"{row['name']:<60} {number(row['c']):>14} {percent(row['c_spread']):>7} "
               f"{number(row['rust']):>14} {percent(row['rust_spread']):>7} {ratio:>8}  {target}{verdict}").rstrip()


def missed_first(parts):
    """Yields the lines of the tables of all PARTS (pairs of a title and rows), in two turns: first
    the figures that missed their targets, then the others."""
    missed = [(title, [row for row in lines if row["met"] is False]) for title, lines in parts]
    judged = [row for _, lines in parts for row in lines if row["met"] is not None]
    yield f"{sum(len(lines) for _, lines in missed)} of {len(judged)} figures missed their targets."
    others = [(title, [row for row in lines if row["met"] is not False]) for title, lines in parts]
    for title, lines in [*missed, *others]:
        if lines:
            yield ""
            yield from table(title, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args()
    parts = []
    for path in args.files:
        if args.whole:
            sides = read(path)
        else:
            sides = read(path.with_suffix(".new"))
            if path.exists():
                sides = complete(sides, read(path))
        lines = list(rows(sides))
        unit = "nanoseconds" if path.name == "parallel" else "instructions, if not said otherwise"
        parts.append((unit, lines))
        text = "\n".join(missed_first(parts[-1:]))
        if args.whole:
            path.with_suffix(".json").write_text(json.dumps(lines, indent=2) + "\n")
        path.with_suffix(".txt" if args.whole else ".new.txt").write_text(text + "\n")
    print("\n".join(missed_first(parts)))


if __name__ == "__main__":
    main()
