# SPDX-License-Identifier: GPL-2.0
"""Compares figures of guest-bench with recorded ones: guard.py [--record] MEASURED RECORDED

MEASURED has the version of the kernel in its first line, then lines of guest-bench. RECORDED is a
JSON file. With --record it is written instead.
"""

import argparse
import json
import sys
from pathlib import Path

# A figure may differ from the recorded one by this fraction; on another kernel, whose own part of a
# request may have changed, by the other one.
MARGIN = 0.03
MARGIN_OF_OTHER_KERNEL = 0.15
RECORD = "tools/testing/bench/guard --record"


def read(text):
    """Returns the kernel's version, and the least sample of each figure by its name.

    Others are higher because of interrupts, or because the kernel had fewer pages at hand.
    """
    version, *lines = text.splitlines()
    pairs = (line.split("\t") for line in lines if "\t" in line)
    return version, {name: min(map(int, samples.split())) for name, samples in pairs}


def verdict(name, new, old, margin):
    """Returns the reasons why a figure fails; NEW or OLD is None if there is none."""
    if new is None:
        return [f"was not measured; if it is gone, record that with {RECORD}"]
    if old is None:
        return [f"{new:,} instructions, and nothing is recorded; record it with {RECORD}"]
    if abs(new - old) <= old * margin:
        return []
    if new < old:
        return [f"{name} takes {new:,} instructions, {1 - new / old:.1%} less than the recorded {old:,}",
                f"record it with {RECORD}, so that it stays as cheap"]
    return [f"{name} takes {new:,} instructions, {new / old - 1:.1%} more than the recorded {old:,}",
            f"find out why; if it has to be so, record it with {RECORD}, and say why in the commit"]


def judge(measured, recorded):
    """Yields the lines to print for the figures, and whether each passed."""
    version, figures = measured
    old = recorded["instructions"]
    margin = MARGIN if version == recorded["kernel"] else MARGIN_OF_OTHER_KERNEL
    for name in dict.fromkeys([*old, *figures]):
        reasons = verdict(name, figures.get(name), old.get(name), margin)
        if reasons and version != recorded["kernel"]:
            reasons.append(f"the recorded figures are those of Linux {recorded['kernel']}, this is {version}")
        lines = [("not ok  " if reasons else "ok      ") + name, *(f"# {reason}" for reason in reasons)]
        yield lines, not reasons


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("measured", type=Path)
    parser.add_argument("recorded", type=Path)
    args = parser.parse_args()
    version, figures = measured = read(args.measured.read_text())
    if args.record:
        text = json.dumps({"kernel": version, "instructions": figures}, indent=2)
        args.recorded.write_text(text + "\n")
        print(f"{len(figures)} figures are recorded in {args.recorded}")
        return
    passed = True
    for lines, good in judge(measured, json.loads(args.recorded.read_text())):
        print(*lines, sep="\n")
        passed &= good
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
