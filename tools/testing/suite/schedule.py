# SPDX-License-Identifier: GPL-2.0
"""Runs steps, two at a time, each after its prerequisites, and prints their results."""

import concurrent.futures
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import manifest
from results import Result

TAIL = 40

# With several processors, a race in QEMU's translator can end QEMU with this message. The run is
# then repeated, unless a test failed or the guest's kernel reported a defect before.
EMULATOR_CRASH = re.compile(r"qemu-system\S*: .*Assertion .* failed")
COMPLAINT = re.compile(r"^(?:test +(?:\[[^]]*\] *)?\S+ +\.\.\. )?FAILED\b|^not ok\b|the guest's kernel reported", re.M)
ATTEMPTS = 3

# A step that takes longer is taken for hung, if it has no limit of its own. This one allows for a concurrent
# build of the debug kernel.
LIMIT_SECONDS = 60 * 60


@dataclasses.dataclass
class Step:
    """A command whose output has test results."""

    name: str
    command: list[str]
    parse: Callable[[str, int], list[Result]]
    after: tuple[str, ...] = ()
    # Returns further lines about a finished run, from its output.
    notes: Callable[[str], list[str]] = lambda _output: []
    # The modules that it tests: "C", "Rust", or None for a mix of both.
    modules: str | None = "Rust"
    limit_seconds: int = LIMIT_SECONDS


def word(result):
    """Returns the printed form of a result."""
    return "ignored" if result.ignored else "ok     " if result.passed else "FAILED "


def kill(process):
    """Terminates a command and all processes in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


class Runner:
    """Runs steps and collects their results."""

    def __init__(self, folder, known, log_folder):
        self.folder = folder
        self.known = known
        self.log_folder = log_folder
        self.results = {}
        self.start = time.monotonic()
        self.printing = threading.Lock()
        self.processes = set()

    def run(self, steps, workers=2):
        """Runs all steps. A step whose prerequisite failed is not run and counts as failed."""
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            try:
                self.run_in(pool, workers, list(steps))
            except BaseException:
                for process in list(self.processes):
                    kill(process)
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def run_in(self, pool, workers, waiting):
        running = {}
        while waiting or running:
            for step in [s for s in waiting if all(name in self.results for name in s.after)]:
                if len(running) == workers:
                    break
                waiting.remove(step)
                running[pool.submit(self.run_step, step)] = step.name
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                self.results[running.pop(future)] = future.result()

    def run_step(self, step):
        broken = [name for name in step.after if not all(r.passed for r in self.results[name])]
        if broken:
            results, output, seconds = [Result(step.name, False, f"not run: {broken[0]} failed")], "", 0
        else:
            results, output, seconds = self.execute(step)
        with self.printing:
            self.report(step, results, output, seconds)
        return results

    def execute(self, step):
        began = time.monotonic()
        for old in self.log_folder.glob(f"{step.name}.*"):
            old.unlink()
        with self.printing:
            self.say(f"{step.name}: running")
        for attempt in range(1, ATTEMPTS + 1):
            status, output = self.attempt(step)
            if attempt == ATTEMPTS or not EMULATOR_CRASH.search(output) or COMPLAINT.search(output):
                break
            kept = self.log(step).rename(self.log_folder / f"{step.name}.crash{attempt}.log")
            with self.printing:
                self.say(f"{step.name}: QEMU itself crashed, see {kept.name}; once more")
        results = step.parse(output, status)
        results = [*results, *self.complaints(step, results, status)]
        return results, output, time.monotonic() - began

    def attempt(self, step):
        """Runs the command of a step; returns its exit status and output."""
        log = self.log(step)
        with log.open("w") as file:
            status = self.run_command(step.command, file, step.limit_seconds)
        return status, log.read_text(errors="replace").replace("\r", "")

    def log(self, step):
        """Returns the path of the output of a step."""
        return self.log_folder / f"{step.name}.log"

    def run_command(self, command, file, limit_seconds):
        """Runs a command in its own process group; returns its exit status."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes.add(process)
        try:
            return process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            file.write(f"\nkilled after {limit_seconds} s\n")
            kill(process)
            return process.wait()
        finally:
            self.processes.discard(process)

    def complaints(self, step, results, status):
        """Yields the failures of a run that are not results of its tests."""
        if status and all(r.passed for r in results):
            yield Result("exit status", False, f"the command ended with {status}")
        if all(r.ignored for r in results):
            yield Result("number of tests", False, "none ran")
        missing = self.known.missing(step.name, results)
        if missing:
            yield Result(manifest.COMPLAINT, False, "\n".join(missing))

    def report(self, step, results, output, seconds):
        failed = [r for r in results if not r.passed]
        for result in results:
            print(f"  {word(result)} {step.name}: {result.name}")
            if not result.passed:
                print("".join(f"           {line}\n" for line in result.detail.splitlines()), end="")
        for note in step.notes(output):
            print(f"         {note}")
        if failed and output:
            print(f"  --- the end of {self.log(step).relative_to(self.folder)}:")
            print("\n".join(f"  | {line}" for line in output.splitlines()[-TAIL:]))
        passed = sum(r.passed and not r.ignored for r in results)
        self.say(f"{step.name}: {passed} passed, {len(failed)} failed in {seconds:.0f} s")

    def finish(self, more):
        """Prints the failed tests and the summary line; returns the exit status."""
        self.results["overall"] = list(more)
        everything = [(step, r) for step, results in self.results.items() for r in results]
        failed = [f"{step}: {r.name}" for step, r in everything if not r.passed]
        for result in self.results["overall"]:
            print(f"  {word(result)} {result.name}")
            print("".join(f"           {line}\n" for line in result.detail.splitlines()), end="")
        if failed:
            print("Failed:", *failed, sep="\n  ")
        passed = sum(r.passed and not r.ignored for _, r in everything)
        summary = f"{passed} passed, {len(failed)} failed"
        (self.log_folder / "summary").write_text(f"{summary}\n")
        print(summary, flush=True)
        return 1 if failed else 0

    def say(self, text):
        print(f"[{time.monotonic() - self.start:4.0f} s] {text}", flush=True)
