# SPDX-License-Identifier: GPL-2.0
"""The KUnit suites: which there are in the sources, and which of them ran."""

import collections
import re

from results import Result, ktap_cases

SUITE = re.compile(r"#\[kunit_tests\((\w+)\)\]")
# Further attributes and comments may stand between #[test] and the function.
CASE = re.compile(r"^\s*#\[test\]\s*(?:(?:#\[[^\n]*\]|//[^\n]*)\s*)*fn (\w+)", re.M)


def in_sources(folders):
    """Returns {suite: [case, ...]} of all Rust files below the folders."""
    suites = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.rs")):
            text = path.read_text()
            starts = list(SUITE.finditer(text))
            for at, start in enumerate(starts):
                end = starts[at + 1].start() if at + 1 < len(starts) else len(text)
                suites[start[1]] = CASE.findall(text, start.end(), end)
    return suites


def judge(expected, output):
    """Compares the KTAP with the sources; what did not run is a failure."""
    ran = {(suite, case): passed for _, suite, case, passed in ktap_cases(output)}
    wanted = {(suite, case) for suite, cases in expected.items() for case in cases}
    results = [Result(f"{suite}::{case}", passed) for (suite, case), passed in ran.items()]
    results += [Result(f"{suite}::{case}", False, "did not run") for suite, case in sorted(wanted - ran.keys())]
    results += [Result(suite, False, "has no cases") for suite, cases in expected.items() if not cases]
    return results


def counts(output):
    """Returns lines that say how many cases ran in each module."""
    per_module = collections.Counter(module for module, *_ in ktap_cases(output))
    return [f"{module}: {count} KUnit cases" for module, count in sorted(per_module.items(), key=str)]
