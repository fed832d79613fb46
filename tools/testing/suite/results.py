# SPDX-License-Identifier: GPL-2.0
"""Test results: how test programs print them, and parsers for their output.

The parsers are our own, because lines of the kernel's log and of other programs may come between
the results. The JSON output of Rust's test harness is not stable.
"""

import dataclasses
import re
import sys

# The id of a row of Documentation/features.rst.
ROW = r"(?:T-)?[A-Z]+\d+"


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a test: its name, whether it passed, and the details of a failure.

    An ignored test does not apply to the tested modules. It counts neither as passed nor as failed.
    ROWS are the rows of Documentation/features.rst that the test is about.
    """

    name: str
    passed: bool
    detail: str = ""
    ignored: bool = False
    rows: tuple[str, ...] = ()


def of_exit_status(name):
    """Returns a parser for a command that is one test, whose result is the exit status."""

    def parse(_output, status):
        return [Result(name, status == 0, "" if status == 0 else f"exit status {status}")]

    return parse


def tell(name, passed, lines=()):
    """Prints a result for checks(), with the reasons of a failure; returns whether it passed."""
    print("ok     " if passed else "not ok ", name)
    if not passed:
        print(*(f"# {line}" for line in lines), sep="\n")
    sys.stdout.flush()
    return passed


def checks(output, _status):
    """Parses 'ok NAME', 'not ok NAME' and 'FAILED NAME'; '# ...' lines after a failure say why.

    A name may begin with a row: 'K3: modprobe vfio loads vfio_iommu_type1'.
    """
    results = []
    for line in output.splitlines():
        if match := re.match(r"(ok|not ok|FAILED) +(.+)", line):
            # The names may contain columns of any width.
            name = " ".join(match[2].split())
            row = re.match(rf"({ROW}): ", name)
            results.append(Result(name, match[1] == "ok", rows=(row[1],) if row else ()))
        elif line.startswith("# ") and results and not results[-1].passed:
            last = results[-1]
            results[-1] = dataclasses.replace(last, detail=f"{last.detail}{line[2:]}\n")
    return results


def libtest(output, _status):
    """Parses the output of Rust's test harness; fails if announced tests have no result."""
    reasons = dict(re.findall(r"^---- (\S+)(?: stdout)? ----\n(.*?)(?=^---- |^failures:|\Z)", output, re.M | re.S))
    results = [
        Result(name, True, ignored=True, rows=rows) if outcome == "ignored"
        else Result(name, outcome == "ok", "" if outcome == "ok" else reasons.get(name, outcome).strip(), rows=rows)
        for name, rows, outcome in libtest_outcomes(output)
    ]
    announced = re.search(r"^running (\d+) tests?$", output, re.M)
    missing = int(announced[1]) - len(results) if announced else 0
    if missing or not announced:
        results.append(Result("all tests ran", False, f"{missing} did not" if announced else "none did"))
    return results


def libtest_outcomes(output):
    """Yields (test, rows, outcome) from 'test [ROW ROW] NAME ... OUTCOME'.

    The output of a test may come before its outcome.
    """
    name, rows = None, ()
    for line in output.splitlines():
        if match := re.match(r"test (?:\[([^]]*)\])?\s*(\S+)\s+\.\.\. (.*)", line):
            rows, name, line = tuple((match[1] or "").split()), match[2], match[3]
        if name and line in ("ok", "FAILED", "ignored"):
            yield name, rows, line
            name = None


def ktap_cases(output):
    """Yields (suite, case, passed) from the KTAP output of KUnit, with or without log prefixes.

    The kernel's kunit_parser.py wants one run in a whole; this is the text of many files in debugfs.
    """
    suite = None
    for line in output.splitlines():
        line = re.sub(r"^\[ *\d+\.\d+\] ", "", line)
        if match := re.match(r"    # Subtest: (\S+)", line):
            suite = match[1]
        elif match := re.match(r"    (ok|not ok) \d+ (\S+)(?: # (\w+))?", line):
            yield suite, match[2], match[1] == "ok" and match[3] != "SKIP"
