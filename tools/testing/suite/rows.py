# SPDX-License-Identifier: GPL-2.0
"""The rows of Documentation/features.rst, and which tests on which modules are about them."""

import collections
import re

from results import Result

FEATURES = "Documentation/features.rst"
UNTESTED = "Rows without a test"

ROW = re.compile(r"   \* - ((?:T-)?[A-Z]+\d+)$")
# At the start of a test's name: 'k7_', 't_m13_', 't_a2_and_a3_', or 'K3: ' as a script has it.
IDS = re.compile(r"(?:t_)?[a-z]+\d+(?:_and_[a-z]+\d+)*(?=_|:)")


def in_document(repo):
    """Returns all rows in their order, and the reasons of those that no test can reach."""
    rows, reasons, row = [], {}, None
    sections = re.split(r"^(.+)\n=+\n", (repo / FEATURES).read_text(), flags=re.M)
    for title, text in zip(sections[1::2], sections[2::2]):
        for line in text.splitlines():
            if match := ROW.match(line):
                row = match[1]
                if title != UNTESTED:
                    rows.append(row)
            elif title == UNTESTED and row and line.startswith("     - "):
                reasons[row] = line.removeprefix("     - ")
    return rows, reasons


def of_test(name):
    """The rows that a test says it is about: t_a02_and_a3_limit is about T-A2 and T-A3."""
    match = IDS.match(name.rpartition("::")[2].lower())
    if not match:
        return []
    ids = match[0].removeprefix("t_").split("_and_")
    prefix = "T-" if match[0].startswith("t_") else ""
    return [prefix + re.sub(r"0*(\d+)$", r"\1", row).upper() for row in ids]


class Table:
    """How many tests of each row passed on the C modules, and on ours."""

    def __init__(self, repo, results, modules, without_c):
        """MODULES says whose modules each step tests; WITHOUT_C why a row has no test on those in C."""
        self.rows, self.reasons = in_document(repo)
        self.without_c = without_c
        self.passed = collections.Counter()
        for step, found in results.items():
            for result in found:
                if result.passed and not result.ignored:
                    self.passed.update((row, modules[step]) for row in of_test(result.name))

    def lines(self):
        """The table, to be printed."""
        yield f"{'row':6} {'C':>4} {'Rust':>4}"
        for row in self.rows:
            counts = [self.passed[row, modules] for modules in ("C", "Rust")]
            reason = "" if any(counts) else f"  {self.reasons.get(row, 'no test passed')}"
            yield f"{row:6} {counts[0]:4} {counts[1]:4}{reason}"

    def judge(self):
        """Each row must have a test that passed on ours and one that passed on C, or a reason against it."""
        reasons = {"Rust": self.reasons, "C": {**self.reasons, **self.without_c}}
        for modules, name in (("Rust", "ours"), ("C", "C")):
            bare = [row for row in self.rows if not self.passed[row, modules] and row not in reasons[modules]]
            yield Result(f"each row has a test on {name} or a reason", not bare, "\n".join(bare))
            idle = [row for row in reasons[modules] if self.passed[row, modules]]
            yield Result(f"no row with a test on {name} is said to have none", not idle, "\n".join(idle))
        unknown = sorted(self.without_c.keys() - set(self.rows))
        yield Result("each exception is about a row", not unknown, "\n".join(unknown))
