# SPDX-License-Identifier: GPL-2.0
"""Reports which of the functions that KCOV instruments were reached in each module."""

import collections
import re
import subprocess

FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
# The function that the compiler's instrumentation calls in each basic block.
POINT = "__sanitizer_cov_trace_pc"
# Functions that no request can reach: KUnit tests, and code that runs when a module is loaded or
# unloaded.
OUT_OF_REACH = re.compile(r"\btests::|\bkunit_|^(?:init|cleanup)_module$|^asan\.")


def instrumented(listing):
    """Returns the number of instrumented points of each function in a disassembly."""
    points = collections.Counter()
    name = None
    for line in listing:
        if match := FUNCTION.match(line.rstrip()):
            name = match[1]
        elif name and POINT in line:
            points[name] += 1
    return points


def of_module(path):
    done = subprocess.run(["objdump", "--disassemble", "--reloc", "--no-show-raw-insn", path],
                          check=True, capture_output=True, text=True)
    return instrumented(done.stdout.splitlines())


def demangled(names):
    done = subprocess.run(["c++filt", "--format=rust"], input="\n".join(names),
                          check=True, capture_output=True, text=True)
    # Remove the hashes in the names of crates and of instances of generic functions.
    return [re.sub(r"\[[0-9a-f]{8,}\]|::h[0-9a-f]{16}$", "", line) for line in done.stdout.splitlines()]


def report(folder, reached):
    """Returns a text about the coverage of the modules in FOLDER.

    REACHED has {module: {function: number of points}}.
    """
    lines = []
    for module, counts in sorted(reached.items()):
        points = of_module(next(folder.rglob(f"{module}.ko")))
        names = dict(zip(points, demangled(points), strict=True))
        names = {name: text for name, text in names.items() if not OUT_OF_REACH.search(text)}
        never = sorted(text for name, text in names.items() if name not in counts)
        lines.append(f"{module}: {len(names) - len(never)} of {len(names)} functions, "
                     f"{sum(counts.get(name, 0) for name in names)} of {sum(points[name] for name in names)} points")
        lines += [f"    never: {text}" for text in never]
    return "\n".join(lines)
