# SPDX-License-Identifier: GPL-2.0
"""Checks across all steps."""

from results import Result


def same_tests(results, only_on_c):
    """Checks that each step X-rust ran all tests of the step X-c; it may have run more."""
    for reference in sorted(results):
        ours = reference.removesuffix("-c") + "-rust"
        if reference.endswith("-c") and ours in results:
            wanted, ran = ({r.name for r in results[step] if not r.ignored} for step in (reference, ours))
            missing = sorted(wanted - ran - only_on_c.keys())
            yield Result(f"{ours} ran all tests of {reference}", not missing, "\n".join(missing))
            idle = sorted(ran & only_on_c.keys())
            yield Result(f"{ours} ran no test that is said to be for C only", not idle, "\n".join(idle))


def all_there(known, steps):
    """Checks that each step of the manifest exists, and that each step is in the manifest."""
    names = [step.name for step in steps]
    vanished, absent = known.vanished(names), known.absent(names)
    yield Result("all steps of the manifest are there", not vanished, "\n".join(vanished))
    yield Result("all steps are in the manifest", not absent, "\n".join(absent))
