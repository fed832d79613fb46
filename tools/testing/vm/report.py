# SPDX-License-Identifier: GPL-2.0
"""What the kernel's log says about defects, and how this program complains."""

import re


class Unusable(Exception):
    """What was asked for can't be done; the text says why, and what to do."""


# The first line of a defect's report: the time, perhaps the thread, up to two words with a colon
# (rcu:, watchdog:), and one of these.
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

# How much of the log belongs to one report, at most, and what ends it before.
REPORT_LINES = 120
LAST_LINE = re.compile(r"---\[ end |={40,}$")


def defects(log):
    """The reports in a kernel log: a list of lists of lines."""
    found, lines = [], iter(log.splitlines())
    for line in lines:
        if FIRST_LINE.search(line):
            found.append([line, *rest(lines)])
    return found


def rest(lines):
    """The lines of a report after its first."""
    for _, line in zip(range(REPORT_LINES - 1), lines):
        yield line
        if LAST_LINE.search(line):
            return
