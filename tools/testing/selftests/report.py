# SPDX-License-Identifier: GPL-2.0
"""Parses the output of a guest: its test cases and their results."""

import dataclasses
import re

CASE = re.compile(r"(ok|not ok) \d+ (\S+)(?: # +(?:(SKIP|XFAIL|XPASS)\b)?\s*(.*))?$")
CONTAINER = "vfio_type1"
# The library's default mode of this program is a container: see container_mode.c.
LIBRARY_CHOOSES = ("vfio_pci_device_test",)
PASS, FAIL, SKIP, LOST = "ok", "FAILED", "skip", "no result"

# Widths of the first columns of the harness' list: fixture, variant. The last column is the test.
WIDTHS = (20, 25)


@dataclasses.dataclass
class Run:
    """The results of one guest."""

    # The result of each case, and the reason if it did not pass, by (case, device).
    outcomes: dict = dataclasses.field(default_factory=dict)
    reasons: dict = dataclasses.field(default_factory=dict)
    # Cases that were not run, because of their mode: {program: {case}}.
    other_modes: dict = dataclasses.field(default_factory=dict)
    # Messages of programs that could not list their cases: {(program, device): text}.
    unlisted: dict = dataclasses.field(default_factory=dict)
    # VFIO requests and their results: {(program, device): text}.
    traces: dict = dataclasses.field(default_factory=dict)
    done: bool = False


def parse(output, modes=CONTAINER):
    """Parses the output of one guest, which ran the variants whose names begin with MODES."""
    run = Run()
    for section in re.split(r"^=== ", output, flags=re.M)[1:]:
        head, _, body = section.partition("\n")
        kind, *names = head.split()
        if kind == "list":
            add_list(run, modes, *names, body)
        elif kind == "run":
            add_results(run, *names, body)
        elif kind == "trace":
            run.traces[tuple(names)] = body
        elif kind == "done":
            run.done = True
    return run


def add_list(run, modes, program, device, text):
    """Adds the cases of a program; they have no result until one is found in the output."""
    cases = listed(text)
    if not cases:
        run.unlisted[program, device] = why_unlisted(text)
    for fixture, variant, test in cases:
        case = ".".join(filter(None, (fixture, variant, test)))
        if variant.startswith(modes) or program in LIBRARY_CHOOSES:
            run.outcomes[case, device] = LOST
        else:
            run.other_modes.setdefault(program, set()).add(case)


def listed(text):
    """Returns (fixture, variant, test) of all cases in the harness' list. The list has a block for
    each fixture, with a column of all its variants and a column of all its tests."""
    found = []
    for block in re.split(r"^(?:# FIXTURE .*|-{70,})\n", text, flags=re.M)[1:]:
        # The text after the last block is the program's own output.
        rows = re.match(r"(\w+) .*\n(?: {21}.*\n)*", block)
        if not rows:
            continue
        variants, tests = [], []
        for line in rows[0].splitlines():
            variant, test = split(split(line, WIDTHS[0])[1], WIDTHS[1])
            variants += [variant] if variant else []
            tests += [test] if test else []
        found += [(rows[1], variant, test) for variant in variants or [""] for test in tests]
    return found


def split(line, width):
    """Returns the text of a column of at least WIDTH characters, and the rest of the line."""
    word = re.match(r"\S*", line)[0]
    return word, line[max(width, len(word)) + 1:].rstrip()


def why_unlisted(text):
    """Returns the reason that a program printed when it could not list its cases."""
    skipped = re.search(r"# SKIP (.*)", text)
    if skipped:
        return skipped[1]
    said = [line.strip() for line in text.splitlines() if line.strip()]
    expression = re.search(r"Expression: (.*)", text)
    error = re.search(r"\[errno: \d+ - (.*)\]", text)
    if expression and error:
        last = "" if said[-1].startswith("[") else f"; {said[-1]}"
        return f"{expression[1]}: {error[1]}{last}"
    return said[-1] if said else "it said nothing"


def add_results(run, _program, device, text):
    """Adds the results of cases, from KTAP output."""
    since = []
    for line in text.splitlines():
        match = CASE.match(line)
        if not match:
            since.append(line)
            continue
        result, case, directive, reason = match.groups()
        run.outcomes[case, device] = SKIP if directive == "SKIP" else PASS if result == "ok" else FAIL
        if directive == "SKIP":
            run.reasons[case, device] = [reason]
        elif result != "ok":
            run.reasons[case, device] = since
        since = []
