# SPDX-License-Identifier: GPL-2.0
"""Runs steps of 'make test' and 'make test-all' in the build root, and prints the test results."""

import argparse
import pathlib
import signal
import sys

import manifest
import rows
from exceptions import Exceptions
from manifest import Manifest
from schedule import Runner
from steps import further_steps, main_steps
from verdict import all_there, same_tests

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[2]
LOG_FOLDER = REPO / "build" / "test-logs"
MANIFEST = HERE / "manifest"
LAST_RUN = LOG_FOLDER / "ran.json"


def selected(steps, names):
    """Returns the named steps and all their prerequisites, in order."""
    by_name = {step.name: step for step in steps}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        sys.exit(f"test: no step {unknown[0]}; there are: {' '.join(by_name)}")
    wanted = set()

    def want(name):
        wanted.add(name)
        for other in by_name[name].after:
            want(other)

    for name in names:
        want(name)
    return [step for step in steps if step.name in wanted]


def record(steps):
    """Updates the manifest from the recorded runs."""
    if not LAST_RUN.exists():
        sys.exit("test: --record wants a run that came to its end")
    changes = manifest.record(MANIFEST, LAST_RUN, [step.name for step in steps])
    print(*changes, f"{len(changes)} changes in {MANIFEST.relative_to(REPO)}", sep="\n")


def advise(known, results):
    """Prints how many tests are not in the manifest yet."""
    unlisted = sum(len(known.unlisted(step, found)) for step, found in results.items())
    if unlisted:
        print(f"{unlisted} tests are not in the manifest: "
              "'tools/testing/test --record' adds those of steps that passed")


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/test", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument("--further", action="store_true", help="the further steps of 'make test-all'")
    parser.add_argument("--record", action="store_true", help="write the tests of the last run into the manifest")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="run only these and their prerequisites")
    args = parser.parse_args()

    main, further = main_steps(REPO), further_steps(REPO)
    every_step = [*main, *further]
    if args.record:
        record(every_step)
        return 0
    steps = selected(every_step, args.steps or [step.name for step in (further if args.further else main)])
    if args.list:
        print(*(step.name for step in steps), sep="\n")
        return 0
    LOG_FOLDER.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = Manifest.parse(MANIFEST.read_text())
    exceptions = Exceptions((HERE / "exceptions.toml").read_text())
    runner = Runner(REPO, known, LOG_FOLDER)
    try:
        runner.run(steps)
    except KeyboardInterrupt:
        sys.exit("test: interrupted")
    manifest.save_run(LAST_RUN, runner.results)
    table = rows.Table(REPO, runner.results, {step.name: step.modules for step in steps}, exceptions.rows_without_c)
    whole = not args.steps and not args.further
    if whole:
        print(*table.lines(), sep="\n")
    advise(known, runner.results)
    overall = [*all_there(known, every_step), *same_tests(runner.results, exceptions.tests_only_on_c)]
    return runner.finish([*overall, *(table.judge() if whole else [])])


if __name__ == "__main__":
    sys.exit(main())
