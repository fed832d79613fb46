# SPDX-License-Identifier: GPL-2.0
"""Runs the rounds in a guest, and says what came of them."""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

REPO = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(REPO / "tools/testing/suite"))

import guests  # noqa: E402
from results import tell  # noqa: E402

FOLDER = REPO / "build" / "linear"
PROGRAM = REPO / "build/cargo/release/guest-linear"

SUMMARY = re.compile(r"(\d+) requests \((\d+) of them overlapping\) in \d+ rounds: "
                     r"\d+ without an explanation, \d+ undecided")
# Usually 30 percent of the requests overlap others. With less than this, a run shows nothing about them. A few
# rounds, as in a repetition, may have less.
LEAST_PERCENT = 5
MANY = 1000
# A guest of a busy host can hang before there is a module of VFIO.
ATTEMPTS = 2


def command(options):
    """What is run in the guest."""
    words = ["guest-linear", "--seed", options.seed, "--requests", options.requests, "--first", options.first,
             "--repeat", options.repeat, "--violations", options.violations]
    if options.rounds is not None:
        words += ["--rounds", options.rounds]
    if options.stack == "c":
        words.append("--c")
    if options.device_files:
        words.append("--device-files")
    words += [f"--{name}" for name in ("strict", "unspared") if getattr(options, name)]
    return words


def run(options, name):
    """Runs the guest; returns its output without a line for each round, the last round, and its status."""
    machine = (guests.device_files if options.device_files else guests.container)(options.kernel)
    words = [REPO / "tools/testing/vm/run", "--kernel", options.kernel, "--stack", options.stack]
    words += ["--iommu", options.iommu, "--log", FOLDER / f"{name}.kernel.log", *machine]
    words += ["--smp", 4, *options.vm, "--copy", PROGRAM, "--timeout", 300 + options.requests // 20]
    lines, last = [], None
    with (FOLDER / f"{name}.log").open("w") as log, tempfile.TemporaryFile("w+") as complaint:
        process = subprocess.Popen([*map(str, words), "--", *map(str, command(options))], cwd=REPO, text=True,
                                   stdout=subprocess.PIPE, stderr=complaint, errors="replace")
        for line in process.stdout:
            log.write(line)
            line = line.rstrip()
            if match := re.fullmatch(r"round (\d+)", line):
                last = int(match[1])
            else:
                lines.append(line)
        status = process.wait()
        complaint.seek(0)
        lines += complaint.read().splitlines()
    return lines, last, status


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/linear/run", description=__doc__)
    parser.add_argument("--stack", choices=("c", "rust"), default="rust")
    parser.add_argument("--kernel", choices=("stock", "test", "debug"), default="stock")
    parser.add_argument("--iommu", choices=("intel", "amd", "virtio"), default="intel")
    for name, default in (("seed", 1), ("requests", 20_000), ("rounds", None), ("first", 0), ("repeat", 1),
                          ("violations", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device-files", action="store_true")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--unspared", action="store_true")
    parser.add_argument("vm", nargs="*")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Without the stack: the tests of both stacks have the same names, so that they can be compared.
    name = f"{'device-files.' if options.device_files else ''}{options.kernel}.{options.iommu}.{options.seed}"
    for _ in range(ATTEMPTS):
        lines, last, status = run(options, f"{options.stack}.{name}")
        if last is not None:
            break
    summary = next((match for line in lines if (match := SUMMARY.fullmatch(line))), None)
    if summary:
        print(summary[0])
    elif last is not None:
        lines.append(f"the guest ended in round {last}: repeat it by --first {last}")
    requests, overlapping = map(int, summary.groups()) if summary else (0, 0)
    concurrent = options.repeat > 1 or requests < MANY or overlapping * 100 >= requests * LEAST_PERCENT
    if not concurrent:
        lines.append(f"less than {LEAST_PERCENT} % of the requests overlapped others")
    said = [line.removeprefix("# ") for line in lines]
    good = [
        tell(f"{name}: every request returned, and the kernel is well", summary is not None and status in (0, 1),
             [*said, f"status {status}"]),
        tell(f"{name}: all answers have an explanation", summary is not None and status == 0 and concurrent, said),
    ]
    for line in lines if all(good) else ():
        if line != summary[0]:
            print(f"        {line}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
