# SPDX-License-Identifier: GPL-2.0
"""What must hold for all steps together."""

from results import Result


def same_tests(results, only_on_c):
    """A step X-c is the reference of X-rust: ours must run all its tests, and may have more."""
    for reference in sorted(results):
        ours = reference.removesuffix("-c") + "-rust"
        if reference.endswith("-c") and ours in results:
            wanted, ran = ({r.name for r in results[step] if not r.ignored} for step in (reference, ours))
            missing = sorted(wanted - ran - only_on_c.keys())
            yield Result(f"{ours} ran all tests of {reference}", not missing, "\n".join(missing))
            idle = sorted(ran & only_on_c.keys())
            yield Result(f"{ours} ran no test that is said to be for C only", not idle, "\n".join(idle))


def all_there(known, steps):
    """Each step of the manifest must exist."""
    vanished = known.vanished(step.name for step in steps)
    yield Result("all steps of the manifest are there", not vanished, "\n".join(vanished))
