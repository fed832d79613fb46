# SPDX-License-Identifier: GPL-2.0
"""Compares the VFIO requests and results that libclient_trace recorded on both stacks."""

import pathlib
import re
import sys

REPO = pathlib.Path(__file__).resolve().parents[3]
IN_GUEST = "/usr/lib/client_trace.so"


def copy(programs):
    """Returns the option that copies the library from the folder PROGRAMS, below the project, to a guest."""
    return ("--copy", f"{REPO / programs}/libclient_trace.so:{IN_GUEST}")


sys.path.append(str(REPO / "tools/testing/differential"))
import compare  # noqa: E402


def steps(trace):
    """Returns the requests, grouped by thread: the order between threads is not deterministic."""
    threads = {}
    for line in trace.splitlines():
        thread = threads.setdefault(line.split(" ", 1)[0], [])
        thread.append(f"{len(thread) + 1} {line}")
    return parse([line for name in sorted(threads) for line in threads[name]])


def mixed_steps(trace):
    """Returns the requests in sorted order, for programs whose threads have the same name."""
    lines = sorted(without_ids(line) for line in trace.splitlines())
    return parse([f"{number} {line}" for number, line in enumerate(lines, 1)])


def without_ids(line):
    """Returns a line without the id that IOMMUFD gave to a device or a page table: which thread gets
    which id depends on their order."""
    return re.sub(r"(BIND_IOMMUFD .* out=\w{24}|ATTACH_IOMMUFD_PT .* out=\w{16})\w{8}", r"\1########", line)


def parse(lines):
    """Returns a step for each line; the step of a line that is no request has no values."""
    return [(compare.parse(line) or [compare.Step(line, {})])[0] for line in lines]


def differences(c, rust):
    """Returns lines that describe the first difference between two lists of steps, if any."""
    if not c:
        return ["there is no trace"]
    unknown = [step.text for step in (*c, *rust) if not step.values]
    if unknown:
        return [f"no request: {unknown[0]}"]
    index = compare.first_difference(c, rust, [])
    return [] if index is None else compare.report(c, rust, index)
