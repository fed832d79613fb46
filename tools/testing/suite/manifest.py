# SPDX-License-Identifier: GPL-2.0
"""The manifest lists the tests that each step runs, so that a missing step or test is noticed.

It is a text file. A line without indent names steps; the indented lines below it are tests that all
these steps run. Each test is listed once, below the line with all its steps.
"""

import collections
import json

HEAD = """\
# SPDX-License-Identifier: GPL-2.0
#
# The tests that each step must run. Made by 'tools/testing/test --record' from the last run.
"""


# The name of the result that a step gets if a test of the manifest did not run.
COMPLAINT = "all tests of the manifest ran"


def names(results):
    """Returns unique names of the tests that ran: further tests of the same name get a number."""
    seen = collections.Counter()
    found = []
    for result in results:
        if not result.ignored and result.name != COMPLAINT:
            seen[result.name] += 1
            number = seen[result.name]
            found.append(result.name if number == 1 else f"{result.name} ({number})")
    return found


class Manifest:
    """The tests of each step."""

    def __init__(self, tests=None):
        self.tests = {step: set(found) for step, found in (tests or {}).items()}

    @classmethod
    def parse(cls, text):
        """Parses the text that str() returns."""
        tests, steps = {}, []
        for line in text.splitlines():
            if line.startswith("\t"):
                for step in steps:
                    tests[step].add(line[1:])
            elif line and not line.startswith("#"):
                steps = line.split()
                for step in steps:
                    tests.setdefault(step, set())
        return cls(tests)

    def __str__(self):
        steps_of = collections.defaultdict(list)
        for step, found in self.tests.items():
            for name in found:
                steps_of[name].append(step)
        blocks = collections.defaultdict(list, {step: [] for step, found in self.tests.items() if not found})
        for name, steps in steps_of.items():
            blocks[" ".join(sorted(steps))].append(name)
        lines = [HEAD]
        for steps, found in sorted(blocks.items()):
            lines += [steps, *(f"\t{name}" for name in sorted(found)), ""]
        return "\n".join(lines)

    def missing(self, step, results):
        """Returns the tests of a step that did not run."""
        return sorted(self.tests.get(step, set()) - set(names(results)))

    def unlisted(self, step, results):
        """Returns the tests of a step that ran and are not listed."""
        return sorted(set(names(results)) - self.tests.get(step, set()))

    def vanished(self, steps):
        """Returns the steps that are listed but do not exist."""
        return sorted(self.tests.keys() - set(steps))

    def absent(self, steps):
        """Returns the steps that exist but are not listed."""
        return sorted(set(steps) - self.tests.keys())

    def record(self, ran, steps):
        """Replaces the entries of steps that ran, and removes those of steps that do not exist."""
        self.tests.update((step, set(found)) for step, found in ran.items())
        for step in self.vanished(steps):
            del self.tests[step]


def save_run(path, results):
    """Saves the tests of the steps that ran, for record().

    Saves only steps in which nothing failed, except that tests of the manifest may be missing.
    """
    good = {step: names(found) for step, found in results.items()
            if all(r.passed or r.name == COMPLAINT for r in found)}
    path.write_text(json.dumps(good, indent=1))


def record(path, run, steps):
    """Updates the manifest file from the saved runs; returns lines that describe the changes."""
    manifest = Manifest.parse(path.read_text())
    before = {(step, name) for step, found in manifest.tests.items() for name in found}
    manifest.record(json.loads(run.read_text()), steps)
    after = {(step, name) for step, found in manifest.tests.items() for name in found}
    path.write_text(str(manifest))
    return [f"{sign} {step}: {name}" for sign, change in (("-", before - after), ("+", after - before))
            for step, name in sorted(change)]
