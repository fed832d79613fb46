# SPDX-License-Identifier: GPL-2.0
"""The KUnit suites: which there are in the sources, and which of them ran."""

import collections
import re

from results import Result, ktap_cases

MODULE = re.compile(r"^(\w+)-y\s*:=\s*(\S+)/\w+\.o", re.M)
SUITE = re.compile(r"#\[(?:\w+::)*kunit_tests\((\w+)\)\]")
# Further attributes and comments may stand between #[test] and the function.
CASE = re.compile(r"^\s*#\[test\]\s*(?:(?:#\[[^\n]*\]|//[^\n]*)\s*)*fn (\w+)", re.M)


def in_sources(repo):
    """Returns {(module, suite): [case, ...]} of all modules that Kbuild knows."""
    suites = {}
    for module, folder in MODULE.findall((repo / "Kbuild").read_text()):
        for path in sorted((repo / folder).rglob("*.rs")):
            text = path.read_text()
            starts = list(SUITE.finditer(text))
            for start, end in zip(starts, [*(s.start() for s in starts[1:]), len(text)]):
                suites[module, start[1]] = CASE.findall(text, start.end(), end)
    return suites


def ours(expected, output):
    """Yields (module, suite, case, passed); the kernel has suites of its own, which don't matter."""
    modules = {suite: module for module, suite in expected}
    for suite, case, passed in ktap_cases(output):
        if suite in modules:
            yield modules[suite], suite, case, passed


def judge(expected, output):
    """Compares the KTAP with the sources; what did not run is a failure."""
    ran = {(suite, case): passed for _, suite, case, passed in ours(expected, output)}
    wanted = {(suite, case) for (_, suite), cases in expected.items() for case in cases}
    results = [Result(f"{suite}::{case}", passed) for (suite, case), passed in ran.items()]
    results += [Result(f"{suite}::{case}", False, "did not run") for suite, case in sorted(wanted - ran.keys())]
    results += [Result(suite, False, "has no cases") for (_, suite), cases in expected.items() if not cases]
    return results


def counts(expected, output):
    """Returns lines that say how many cases ran in each module."""
    per_module = collections.Counter(module for module, *_ in ours(expected, output))
    return [f"{module}: {count} KUnit cases" for module, count in sorted(per_module.items())]
