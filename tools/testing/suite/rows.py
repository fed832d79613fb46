# SPDX-License-Identifier: GPL-2.0
"""The rows of Documentation/features.rst, and their tests on the C and the Rust modules."""

import collections
import re

from results import ROW, Result

FEATURES = "Documentation/features.rst"
UNTESTED = "Rows without a test"

START = re.compile(rf"   \* - ({ROW})$")


def in_document(repo):
    """Returns all rows in their order, and the reasons of the rows without a test."""
    rows, reasons, row = [], {}, None
    sections = re.split(r"^(.+)\n=+\n", (repo / FEATURES).read_text(), flags=re.M)
    for title, text in zip(sections[1::2], sections[2::2], strict=True):
        for line in text.splitlines():
            if match := START.match(line):
                row = match[1]
                if title != UNTESTED:
                    rows.append(row)
            elif title == UNTESTED and row and line.startswith("     - "):
                reasons[row] = line.removeprefix("     - ")
    return rows, reasons


class Table:
    """The number of tests of each row that passed on the C modules and on the Rust modules."""

    def __init__(self, repo, results, modules, without_c):
        """MODULES has the modules of each step; WITHOUT_C the reasons of rows without a C test."""
        self.rows, self.reasons = in_document(repo)
        self.without_c = without_c
        self.passed = collections.Counter()
        self.unknown = set()
        for step, found in results.items():
            for result in found:
                self.unknown.update(f"{result.name}: {row}" for row in result.rows if row not in self.rows)
                if result.passed and not result.ignored:
                    self.passed.update((row, modules[step]) for row in result.rows)

    def lines(self):
        """Yields the lines of the table."""
        yield f"{'row':6} {'C':>4} {'Rust':>4}"
        for row in self.rows:
            counts = [self.passed[row, modules] for modules in ("C", "Rust")]
            reason = "" if any(counts) else f"  {self.reasons.get(row, 'no test passed')}"
            yield f"{row:6} {counts[0]:4} {counts[1]:4}{reason}"

    def judge(self):
        """Checks that each row has a passed test on Rust and on C, or a reason for having none."""
        reasons = {"Rust": self.reasons, "C": {**self.reasons, **self.without_c}}
        for modules, name in (("Rust", "ours"), ("C", "C")):
            bare = [row for row in self.rows if not self.passed[row, modules] and row not in reasons[modules]]
            yield Result(f"each row has a test on {name} or a reason", not bare, "\n".join(bare))
            idle = [row for row in reasons[modules] if self.passed[row, modules]]
            yield Result(f"no row with a test on {name} is said to have none", not idle, "\n".join(idle))
        yield Result("each row of a test exists", not self.unknown, "\n".join(sorted(self.unknown)))
        unknown = sorted(self.without_c.keys() - set(self.rows))
        yield Result("each exception is about a row", not unknown, "\n".join(unknown))
