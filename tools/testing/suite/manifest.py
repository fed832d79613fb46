# SPDX-License-Identifier: GPL-2.0
"""The manifest: which tests each step runs, so that neither a step nor a test vanishes unnoticed.

It is a text file. A line without indent names steps, the indented lines below it are tests that all of
these steps run. Each test is listed once for the steps that it belongs to.
"""

import collections
import json

HEAD = """\
# SPDX-License-Identifier: GPL-2.0
#
# The tests that each step must run. Made by 'tools/testing/test --record' from the last run.
"""


# The result of a step in which a test of the manifest did not run.
COMPLAINT = "all tests of the manifest ran"


def names(results):
    """The tests that ran, as one name each: a second test of the same name gets a number."""
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
        """Reads what str() wrote."""
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
        """The tests of a step that did not run."""
        return sorted(self.tests.get(step, set()) - set(names(results)))

    def unlisted(self, step, results):
        """The tests that ran and are not listed."""
        return sorted(set(names(results)) - self.tests.get(step, set()))

    def vanished(self, steps):
        """The steps that are listed and don't exist."""
        return sorted(self.tests.keys() - set(steps))

    def record(self, ran, steps):
        """Replaces the entries of the steps that ran, and drops those of steps that don't exist."""
        self.tests.update((step, set(found)) for step, found in ran.items())
        for step in self.vanished(steps):
            del self.tests[step]


def save_run(path, results):
    """Writes down what the steps ran, for record(): those in which nothing failed but the manifest.

    What earlier runs wrote about other steps stays.
    """
    ran = json.loads(path.read_text()) if path.exists() else {}
    for step, found in results.items():
        ran.pop(step, None)
        if all(r.passed or r.name == COMPLAINT for r in found):
            ran[step] = names(found)
    path.write_text(json.dumps(ran, indent=1))


def record(path, run, steps):
    """Brings the manifest file up to date with the last run; returns lines that say what changed."""
    manifest = Manifest.parse(path.read_text())
    before = {(step, name) for step, found in manifest.tests.items() for name in found}
    manifest.record(json.loads(run.read_text()), steps)
    after = {(step, name) for step, found in manifest.tests.items() for name in found}
    path.write_text(str(manifest))
    return [f"{sign} {step}: {name}" for sign, change in (("-", before - after), ("+", after - before))
            for step, name in sorted(change)]
