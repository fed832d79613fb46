# SPDX-License-Identifier: GPL-2.0
"""Runs a random sequence of requests on the C and the Rust modules, and compares the results."""

import argparse
import pathlib
import subprocess
import sys

import compare
import machine

REPO = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(REPO / "tools/testing/suite"))

from results import tell  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = REPO / "build" / "differential"
STACKS = ("c", "rust")
ATTEMPTS = 2

PROGRAM = "build/cargo/release/guest-differential"


class Guest:
    """A guest that runs a sequence."""

    def __init__(self, stack, seed, options):
        self.stack = stack
        self.trace = FOLDER / f"{stack}.{seed}.trace"
        self.disk = machine.disk()
        command = [REPO / "tools/testing/vm/run", "--kernel", "stock", "--stack", stack]
        command += ["--log", FOLDER / f"{stack}.{seed}.kernel.log"]
        command += [*machine.options("stock", self.disk.name), *options.vm]
        command += ["--copy", REPO / PROGRAM, "--timeout", str(120 + options.steps / 20)]
        command += ["--", "guest-differential", "--seed", str(seed), "--steps", str(options.steps)]
        command += ["--c"] if stack == "c" else []
        with self.trace.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, cwd=REPO)

    def finish(self):
        """Waits for the guest; returns the steps and error messages."""
        complaint = self.process.communicate()[1]
        self.disk.close()
        status = self.process.returncode
        steps = compare.parse(self.trace.read_text(errors="replace").replace("\r", ""))
        return steps, f"{complaint}the guest ended with status {status}" if status else ""


def run(seed, options):
    """Runs a sequence on both stacks; returns the steps and error messages of each."""
    for _ in range(ATTEMPTS):
        guests = [Guest(stack, seed, options) for stack in STACKS]
        results = [guest.finish() for guest in guests]
        # On a busy host, a guest can hang before any VFIO module is loaded: run the sequence again.
        if all(steps for steps, _ in results):
            break
    return results


def judge(seed, results, steps, rules):
    """Prints the results of a sequence; returns whether all passed."""
    (c, c_complaint), (rust, rust_complaint) = results
    index = compare.first_difference(c, rust, rules)
    lines = [] if index is None else compare.report(c, rust, index)
    return all([
        tell(f"seed {seed}: {steps} steps went through both stacks",
             min(len(c), len(rust)) == steps + 1 and not c_complaint and not rust_complaint,
             [f"C: {len(c)} lines", *c_complaint.splitlines(),
              f"Rust: {len(rust)} lines", *rust_complaint.splitlines()]),
        tell(f"seed {seed}: no difference but those listed", index is None, lines),
        *(tell(f"seed {seed}: {name} does what the model expects", not strange, map(str, strange[:10]))
          for name, strange in (("C", compare.unexpected(c)), ("Rust", compare.unexpected(rust)))),
    ])


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/differential/run", description=__doc__)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("vm", nargs="*")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rules = compare.read_rules(HERE / "differences.toml")
    good = [judge(seed, run(seed, options), options.steps, rules) for seed in options.seed or [1]]
    for rule in rules:
        print(f"        listed: {rule.name}: seen {rule.seen} times")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
