# SPDX-License-Identifier: GPL-2.0
"""Finds reports of defects in the kernel's log; and the exception for unusable requests."""

import itertools
import re


class Unusable(Exception):
    """The request cannot be fulfilled; the text has the reason and a remedy."""


# Matches the first line of a report: optionally the time and the thread, up to two words with a
# colon (rcu:, watchdog:), and one of these texts.
FIRST_LINE = re.compile(r"""
    ^ (?: \[ \s* \d+ \. \d+ \] (?: \[ [^]]* \] )? \s )?
    (?: \S+: \s ){0,2}
    (?: WARNING: \s
      | (?: \[ \s )? BUG: \s
      | INFO: \s (?: task \s | possible \s | trying \s to \s register | .* \b stall )
      | KASAN: \s | UBSAN: \s | KFENCE: \s
      | Oops \b | kernel \s BUG \s at | Kernel \s panic | panicked \s at
      | general \s protection \s fault | Unable \s to \s handle
      | (?: invalid \s opcode | divide \s error | double \s fault | stack \s segment ) : \s
      | refcount_t: | DEBUG_LOCKS_WARN_ON | list_ (?: add | del ) \s corruption
      | \d+ \s new \s suspected \s memory \s leaks
      | unregister_netdevice: \s waiting
    )""", re.VERBOSE)

# The maximum length of a report in lines, and the pattern of its last line.
REPORT_LINES = 120
LAST_LINE = re.compile(r"---\[ end |={40,}$")


def defects(log, known=()):
    """Returns the reports in a kernel log, each as a list of lines, but those with one of the texts
    KNOWN in the first line."""
    found, lines = [], iter(log.splitlines())
    for line in lines:
        if FIRST_LINE.search(line):
            report = [line, *rest(lines)]
            if not any(text in line for text in known):
                found.append(report)
    return found


def rest(lines):
    """Yields the lines of a report after the first."""
    for line in itertools.islice(lines, REPORT_LINES - 1):
        yield line
        if LAST_LINE.search(line):
            return
