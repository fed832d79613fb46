# SPDX-License-Identifier: GPL-2.0
"""Reads what a guest printed: which cases there are, and how each of them ended."""

import dataclasses
import re

CASE = re.compile(r"(ok|not ok) \d+ (\S+)(?: # +(?:(SKIP|XFAIL|XPASS)\b)?\s*(.*))?$")
CONTAINER = "vfio_type1"
# What the library chooses for this one is a container: see container_mode.c.
LIBRARY_CHOOSES = ("vfio_pci_device_test",)
PASS, FAIL, SKIP, LOST = "ok", "FAILED", "skip", "no result"

# The columns of the harness' list: fixture, variant, test.
WIDTHS = (20, 25)


@dataclasses.dataclass
class Run:
    """All that one guest did."""

    # How each case ended, and why if it did not pass, by (case, device).
    outcomes: dict = dataclasses.field(default_factory=dict)
    reasons: dict = dataclasses.field(default_factory=dict)
    # Cases that were not asked for, since they use no container: {program: {case}}.
    other_modes: dict = dataclasses.field(default_factory=dict)
    # What programs said that could not list their cases: {(program, device): text}.
    unlisted: dict = dataclasses.field(default_factory=dict)
    # What they asked of VFIO and what was answered: {(program, device): text}.
    traces: dict = dataclasses.field(default_factory=dict)
    done: bool = False


def parse(output):
    """Reads the output of one guest."""
    run = Run()
    for section in re.split(r"^=== ", output, flags=re.M)[1:]:
        head, _, body = section.partition("\n")
        kind, *names = head.split()
        if kind == "list":
            add_list(run, *names, body)
        elif kind == "run":
            add_results(run, *names, body)
        elif kind == "trace":
            run.traces[tuple(names)] = body
        elif kind == "done":
            run.done = True
    return run


def add_list(run, program, device, text):
    """Notes the cases that a program has; they count as lost until they are heard of."""
    cases = listed(text)
    if not cases:
        run.unlisted[program, device] = why_unlisted(text)
    for fixture, variant, test in cases:
        case = ".".join(filter(None, (fixture, variant, test)))
        if variant.startswith(CONTAINER) or program in LIBRARY_CHOOSES:
            run.outcomes[case, device] = LOST
        else:
            run.other_modes.setdefault(program, set()).add(case)


def listed(text):
    """Returns (fixture, variant, test) of all cases in the harness' list: for each fixture a block
    with all its variants and all its tests below each other."""
    found = []
    for block in re.split(r"^(?:# FIXTURE .*|-{70,})\n", text, flags=re.M)[1:]:
        # What follows the last block belongs to the program.
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
    """A column of at least WIDTH characters, and what follows it."""
    word = re.match(r"\S*", line)[0]
    return word, line[max(width, len(word)) + 1:].rstrip()


def why_unlisted(text):
    """What a program said when it could not even begin."""
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
    """Reads KTAP."""
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
