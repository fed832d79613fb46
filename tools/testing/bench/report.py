# SPDX-License-Identifier: GPL-2.0
"""Makes a table, and JSON, of what guest-bench has measured: report.py FILE..."""

import json
import re
import statistics
import sys
from pathlib import Path

# What figures should be at most, as a multiple of what they are on the C modules; or 0, if that is all.
LARGE = r"(1 GiB|64 times 16 MiB) of"
TARGETS = {
    r"one page: map\+unmap": 1.0,
    rf"{LARGE} (scattered 4 KiB pages|4 KiB pages|memfd): map": 0.75,
    rf"{LARGE} (scattered 4 KiB pages|4 KiB pages|memfd): (unmap|UNMAP_ALL|close)": 0.6,
    rf"{LARGE} (THP|hugetlb): map": 0.6,
    rf"{LARGE} (THP|hugetlb): (unmap|UNMAP_ALL|close)": 0.1,
    r"pin_pages\(512\).*: pin\+unpin": 0.2,
    r"GET_BITMAP of one mapping among 10,000": 0.05,
    r"worst .* while 2 GiB are mapped": 0.01,
    r"bytes a mapping of one page": 1.0,
    r"bytes a pinned page": 0.25,
    r".*: page-table pages left by unmap": 0,
    r"smallest driver: (create\+remove|register: .*)": 1.0,
    r"driver with memory: .*": 1.0,
}
# Of these the time with two threads is compared with the time of one, on the same modules.
ONE_THREAD = "512 MiB of 4 KiB pages: one thread"
TWO_THREADS = "512 MiB of 4 KiB pages: two threads"
SPEEDUP = 1.7


def read(path):
    """The figures of each stack: the median of those of all rounds."""
    rounds = {"c": {}, "rust": {}}
    stack = None
    for line in path.read_text().splitlines():
        if line.startswith("stack "):
            stack = rounds[line.removeprefix("stack ")]
        elif "\t" in line:
            name, value = line.split("\t")
            stack.setdefault(name, []).append(int(value))
    return {stack: {name: statistics.median(values) for name, values in figures.items()}
            for stack, figures in rounds.items()}


def rows(figures):
    """Name, C, Rust, ratio, target and verdict of each figure."""
    for name, c in figures["c"].items():
        rust = figures["rust"][name]
        ratio = rust / c if c else None
        target = next((most for names, most in TARGETS.items() if re.fullmatch(names, name)), None)
        value = rust if target == 0 else ratio
        met = None if target is None or value is None else value <= target
        yield {"name": name, "c": c, "rust": rust, "ratio": ratio, "target": target, "met": met}
    if ONE_THREAD in figures["c"]:
        yield speedup(figures)


def speedup(figures):
    """How much faster two threads are than one."""
    c, rust = (figures[stack][ONE_THREAD] / figures[stack][TWO_THREADS] for stack in ("c", "rust"))
    return {"name": "times as fast with two threads", "c": c, "rust": rust, "ratio": rust / c,
            "target": f"rust >= {SPEEDUP}", "met": rust >= SPEEDUP}


def number(value):
    return f"{value:,.2f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def table(title, lines):
    """The rows as text."""
    yield f"{title:<60} {'C':>14} {'Rust':>14} {'Rust/C':>8}  target"
    for row in lines:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        target = row["target"]
        target = "" if target is None else target if isinstance(target, str) else f"<= {target}"
        verdict = {None: "", True: "", False: "  MISSED"}[row["met"]]
        yield f"{row['name']:<60} {number(row['c']):>14} {number(row['rust']):>14} {ratio:>8}  {target}{verdict}".rstrip()


def main(paths):
    for path in map(Path, paths):
        lines = list(rows(read(path)))
        unit = "nanoseconds" if path.name == "parallel" else "instructions, if not said otherwise"
        text = "\n".join(table(unit, lines))
        path.with_suffix(".txt").write_text(text + "\n")
        path.with_suffix(".json").write_text(json.dumps(lines, indent=2) + "\n")
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
