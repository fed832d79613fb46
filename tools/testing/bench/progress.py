# SPDX-License-Identifier: GPL-2.0
"""Copies the output of bench/guest to a file, and says what was measured: progress.py PART FILE

Each figure is a line on the standard error, with the time since the start, the part, the round and
the modules.
"""

import sys
import time
from pathlib import Path


def lines(part, output, clock):
    """Yields pairs of a line of the guest's output, and what to say about it (None: nothing)."""
    start = clock()
    measured, stack = "", ""
    for line in output:
        said = None
        if line.startswith("round "):
            measured = line.strip()
        elif line.startswith("stack "):
            stack = line.removeprefix("stack ").strip()
            said = "begins"
        elif "\t" in line:
            said = line.partition("\t")[0]
        if said is not None:
            minutes, seconds = divmod(int(clock() - start), 60)
            said = f"bench: {minutes}:{seconds:02} {part}: {measured}: {stack}: {said}"
        yield line, said


def main(part, path):
    with Path(path).open("w") as file:
        for line, said in lines(part, sys.stdin, time.monotonic):
            file.write(line)
            file.flush()
            if said is not None:
                print(said, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
