# SPDX-License-Identifier: GPL-2.0
"""Test results: how test programs print them, and parsers for their output.

The parsers are our own, because lines of the kernel's log and of other programs may come between
the results. The JSON output of Rust's test harness is not stable.
"""

import dataclasses
import re
import sys


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a test: its name, whether it passed, and the details of a failure.

    An ignored test does not apply to the tested modules. It counts neither as passed nor as failed.
    """

    name: str
    passed: bool
    detail: str = ""
    ignored: bool = False


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
    """Parses 'ok NAME', 'not ok NAME' and 'FAILED NAME'; '# ...' lines after a failure say why."""
    results = []
    for line in output.splitlines():
        if match := re.match(r"(ok|not ok|FAILED) +(.+)", line):
            # The names may contain columns of any width.
            results.append(Result(" ".join(match[2].split()), match[1] == "ok"))
        elif line.startswith("# ") and results and not results[-1].passed:
            last = results[-1]
            results[-1] = dataclasses.replace(last, detail=f"{last.detail}{line[2:]}\n")
    return results


def libtest(output, _status):
    """Parses the output of Rust's test harness; fails if announced tests have no result."""
    reasons = dict(re.findall(r"^---- (\S+)(?: stdout)? ----\n(.*?)(?=^---- |^failures:|\Z)", output, re.M | re.S))
    results = [
        Result(name, True, ignored=True) if outcome == "ignored"
        else Result(name, outcome == "ok", "" if outcome == "ok" else reasons.get(name, outcome).strip())
        for name, outcome in libtest_outcomes(output)
    ]
    announced = re.search(r"^running (\d+) tests?$", output, re.M)
    missing = int(announced[1]) - len(results) if announced else 0
    if missing or not announced:
        results.append(Result("all tests ran", False, f"{missing} did not" if announced else "none did"))
    return results


def libtest_outcomes(output):
    """Yields (test, outcome). The output of a test may come between the two."""
    name = None
    for line in output.splitlines():
        if match := re.match(r"test (\S+)\s+\.\.\. (.*)", line):
            name, line = match.groups()
        if name and line in ("ok", "FAILED", "ignored"):
            yield name, line
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
