# SPDX-License-Identifier: GPL-2.0
"""Compares figures of guest-bench with recorded ones: guard.py [--record] MEASURED RECORDED

MEASURED has the version of the kernel in its first line, then lines of guest-bench. RECORDED is a
JSON file. With --record it is written instead.
"""

import argparse
import json
import sys
from pathlib import Path

# A figure may exceed the recorded one by this fraction.
MARGIN = 0.03
RECORD = "tools/testing/bench/guard --record"


def read(text):
    """Returns the kernel's version, and the least sample of each figure by its name.

    Others are higher because of interrupts, or because the kernel had fewer pages at hand.
    """
    version, *lines = text.splitlines()
    pairs = (line.split("\t") for line in lines if "\t" in line)
    return version, {name: min(map(int, samples.split())) for name, samples in pairs}


def verdict(name, new, old):
    """Returns the reasons why a figure fails; NEW or OLD is None if there is none."""
    if new is None:
        return [f"was not measured; if it is gone, record that with {RECORD}"]
    if old is None:
        return [f"{new:,} instructions, and nothing is recorded; record it with {RECORD}"]
    if new <= old * (1 + MARGIN):
        return []
    return [f"{name} takes {new:,} instructions, {new / old - 1:.1%} more than the recorded {old:,}",
            f"find out why; if it has to be so, record it with {RECORD}, and say why in the commit"]


def judge(measured, recorded):
    """Yields the lines to print for the figures, and whether each passed."""
    version, figures = measured
    old = recorded["instructions"]
    for name in dict.fromkeys([*old, *figures]):
        reasons = verdict(name, figures.get(name), old.get(name))
        if reasons and version != recorded["kernel"]:
            reasons.append(f"the recorded figures are those of Linux {recorded['kernel']}, this is {version}")
        lines = [("not ok  " if reasons else "ok      ") + name, *(f"# {reason}" for reason in reasons)]
        yield lines, not reasons
    cheaper = [name for name, new in figures.items() if name in old and new < old[name] * (1 - MARGIN)]
    if cheaper:
        yield [f"cheaper than recorded, so record it with {RECORD}: {', '.join(cheaper)}"], True


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
