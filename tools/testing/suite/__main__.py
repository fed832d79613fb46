# SPDX-License-Identifier: GPL-2.0
"""Runs the steps of 'make test' within the build root, and says how many tests passed and failed."""

import argparse
import pathlib
import signal
import sys

import rows
from results import Result
from schedule import Runner
from steps import all_steps

REPO = pathlib.Path(__file__).resolve().parents[3]


def read_minimum():
    """The number of tests that each step must have at least, so that none vanishes unnoticed."""
    lines = (pathlib.Path(__file__).parent / "minimum").read_text().splitlines()
    return {name: int(count) for name, count in (line.split() for line in lines if line and line[0] != "#")}


def selected(steps, names):
    """The named steps and all that they need, in order; all of them when none is named."""
    by_name = {step.name: step for step in steps}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        sys.exit(f"test: no step {unknown[0]}; there are: {' '.join(by_name)}")
    wanted = set()

    def want(name):
        wanted.add(name)
        for other in by_name[name].after:
            want(other)

    for name in names or by_name:
        want(name)
    return [step for step in steps if step.name in wanted]


def same_tests(results):
    """A step X-c is the reference of X-rust: ours must have gone through all its tests, and may have more."""
    for reference in sorted(results):
        ours = reference.removesuffix("-c") + "-rust"
        if reference.endswith("-c") and ours in results:
            missing = sorted({r.name for r in results[reference]} - {r.name for r in results[ours]})
            yield Result(f"{ours} ran all tests of {reference}", not missing, "\n".join(missing))


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/test", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="run only these and what they need")
    args = parser.parse_args()

    steps = selected(all_steps(REPO), args.steps)
    if args.list:
        print(*(step.name for step in steps), sep="\n")
        return 0
    log_folder = REPO / "build" / "test-logs"
    log_folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = Runner(REPO, read_minimum(), log_folder)
    try:
        runner.run(steps)
    except KeyboardInterrupt:
        sys.exit("test: interrupted")
    table = rows.Table(REPO, runner.results)
    print(*table.lines(), sep="\n")
    return runner.finish([*same_tests(runner.results), *([] if args.steps else table.judge())])


if __name__ == "__main__":
    sys.exit(main())
