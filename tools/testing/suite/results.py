# SPDX-License-Identifier: GPL-2.0
"""Single test results, how test programs print them, and how to read them out of that."""

import dataclasses
import re
import sys


@dataclasses.dataclass(frozen=True)
class Result:
    """One test: what it shows, whether it passed, and what there is to say about a failure.

    An ignored one, which does not apply to what was tested, counts neither as passed nor as failed.
    """

    name: str
    passed: bool
    detail: str = ""
    ignored: bool = False


def of_exit_status(name):
    """A parser for commands that are one test: the exit status tells."""

    def parse(_output, status):
        return [Result(name, status == 0, "" if status == 0 else f"exit status {status}")]

    return parse


def tell(name, passed, lines=()):
    """Prints a result as checks() reads it, with lines that say why it failed; returns whether it passed."""
    print("ok     " if passed else "not ok ", name)
    if not passed:
        print(*(f"# {line}" for line in lines), sep="\n")
    sys.stdout.flush()
    return passed


def checks(output, _status):
    """Reads 'ok NAME' and 'not ok NAME' (or FAILED); '# ...' lines behind the latter say why."""
    results = []
    for line in output.splitlines():
        if match := re.match(r"(ok|not ok|FAILED) +(.+)", line):
            # Columns may be of any width.
            results.append(Result(" ".join(match[2].split()), match[1] == "ok"))
        elif line.startswith("# ") and results and not results[-1].passed:
            last = results[-1]
            results[-1] = dataclasses.replace(last, detail=f"{last.detail}{line[2:]}\n")
    return results


def libtest(output, _status):
    """Reads what Rust's test harness prints; tests that were announced but not heard of failed."""
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
    """Yields (test, outcome). What a test printed may stand between the two."""
    name = None
    for line in output.splitlines():
        if match := re.match(r"test (\S+)\s+\.\.\. (.*)", line):
            name, line = match.groups()
        if name and line in ("ok", "FAILED", "ignored"):
            yield name, line
            name = None


def ktap_cases(output):
    """Yields (suite, case, passed) out of the KTAP of KUnit, with or without log prefixes."""
    suite = None
    for line in output.splitlines():
        line = re.sub(r"^\[ *\d+\.\d+\] ", "", line)
        if match := re.match(r"    # Subtest: (\S+)", line):
            suite = match[1]
        elif match := re.match(r"    (ok|not ok) \d+ (\S+)(?: # (\w+))?", line):
            yield suite, match[2], match[1] == "ok" and match[3] != "SKIP"
