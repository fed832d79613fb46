# SPDX-License-Identifier: GPL-2.0
"""What a program asked of VFIO and what it was answered, as libclient_trace wrote it down: on both stacks."""

import pathlib
import sys

REPO = pathlib.Path(__file__).resolve().parents[3]
LIBRARY = "build/cargo/release/libclient_trace.so"
IN_GUEST = "/usr/lib/client_trace.so"
COPY = ("--copy", f"{REPO / LIBRARY}:{IN_GUEST}")

sys.path.append(str(REPO / "tools/testing/differential"))
import compare  # noqa: E402


def steps(trace):
    """The requests of each thread in turn: how those of different threads mix is left to chance."""
    threads = {}
    for line in trace.splitlines():
        thread = threads.setdefault(line.split(" ", 1)[0], [])
        thread.append(f"{len(thread) + 1} {line}")
    return compare.parse("\n".join(line for name in sorted(threads) for line in threads[name]))


def mixed_steps(trace):
    """The requests without their order, for threads of the same name."""
    lines = sorted(line for line in trace.splitlines())
    return compare.parse("\n".join(f"{number} {line}" for number, line in enumerate(lines, 1)))


def differences(c, rust):
    """Lines about the first difference between two lists of steps; none if there is none."""
    if not c:
        return ["there is no trace"]
    index = compare.first_difference(c, rust, [])
    return [] if index is None else compare.report(c, rust, index)
