# SPDX-License-Identifier: GPL-2.0
"""The KUnit suites: finds them in the sources, and checks that they ran."""

import collections
import re

from results import Result, ktap_cases

MODULE = re.compile(r"^(\w+)-y\s*:=\s*(\S+)/\w+\.o", re.M)
SUITE = re.compile(r"#\[(?:\w+::)*kunit_tests\((\w+)\)\]")
# There may be attributes and comments between #[test] and the function.
CASE = re.compile(r"^\s*#\[test\]\s*(?:(?:#\[[^\n]*\]|//[^\n]*)\s*)*fn (\w+)", re.M)


def in_sources(repo):
    """Returns {(module, suite): [case, ...]} for all modules in Kbuild."""
    suites = {}
    for module, folder in MODULE.findall((repo / "Kbuild").read_text()):
        for path in sorted((repo / folder).rglob("*.rs")):
            text = path.read_text()
            starts = list(SUITE.finditer(text))
            for start, end in zip(starts, [*(s.start() for s in starts[1:]), len(text)], strict=False):
                suites[module, start[1]] = CASE.findall(text, start.end(), end)
    return suites


def ours(expected, output):
    """Yields (module, suite, case, passed) for the expected suites, not for the kernel's own."""
    modules = {suite: module for module, suite in expected}
    for suite, case, passed in ktap_cases(output):
        if suite in modules:
            yield modules[suite], suite, case, passed


def judge(expected, output):
    """Compares the KTAP output with the sources; a case that did not run has failed."""
    ran = {(suite, case): passed for _, suite, case, passed in ours(expected, output)}
    wanted = {(suite, case) for (_, suite), cases in expected.items() for case in cases}
    results = [Result(f"{suite}::{case}", passed) for (suite, case), passed in ran.items()]
    results += [Result(f"{suite}::{case}", False, "did not run") for suite, case in sorted(wanted - ran.keys())]
    results += [Result(suite, False, "has no cases") for (_, suite), cases in expected.items() if not cases]
    return results


def counts(expected, output):
    """Returns lines with the number of cases that ran in each module."""
    per_module = collections.Counter(module for module, *_ in ours(expected, output))
    return [f"{module}: {count} KUnit cases" for module, count in sorted(per_module.items())]
