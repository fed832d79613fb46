# SPDX-License-Identifier: GPL-2.0
"""The rows of Documentation/features.rst, and their tests on the C and the Rust modules."""

import collections
import re

from results import Result

FEATURES = "Documentation/features.rst"
UNTESTED = "Rows without a test"

ROW = re.compile(r"   \* - ((?:T-)?[A-Z]+\d+)$")
# Matches the row ids at the start of a test's name: 'k7_', 't_m13_', 't_a2_and_a3_', or 'K3:' in
# scripts.
IDS = re.compile(r"(?:t_)?[a-z]+\d+(?:_and_[a-z]+\d+)*(?=_|:)")


def in_document(repo):
    """Returns all rows in their order, and the reasons of the rows without a test."""
    rows, reasons, row = [], {}, None
    sections = re.split(r"^(.+)\n=+\n", (repo / FEATURES).read_text(), flags=re.M)
    for title, text in zip(sections[1::2], sections[2::2], strict=True):
        for line in text.splitlines():
            if match := ROW.match(line):
                row = match[1]
                if title != UNTESTED:
                    rows.append(row)
            elif title == UNTESTED and row and line.startswith("     - "):
                reasons[row] = line.removeprefix("     - ")
    return rows, reasons


def of_test(name):
    """Returns the rows that a test's name refers to: t_a02_and_a3_limit refers to T-A2 and T-A3."""
    match = IDS.match(name.rpartition("::")[2].lower())
    if not match:
        return []
    ids = match[0].removeprefix("t_").split("_and_")
    prefix = "T-" if match[0].startswith("t_") else ""
    return [prefix + re.sub(r"0*(\d+)$", r"\1", row).upper() for row in ids]


class Table:
    """The number of tests of each row that passed on the C modules and on the Rust modules."""

    def __init__(self, repo, results, modules, without_c):
        """MODULES has the modules of each step; WITHOUT_C the reasons of rows without a C test."""
        self.rows, self.reasons = in_document(repo)
        self.without_c = without_c
        self.passed = collections.Counter()
        for step, found in results.items():
            for result in found:
                if result.passed and not result.ignored:
                    self.passed.update((row, modules[step]) for row in of_test(result.name))

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
        unknown = sorted(self.without_c.keys() - set(self.rows))
        yield Result("each exception is about a row", not unknown, "\n".join(unknown))
