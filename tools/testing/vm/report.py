# SPDX-License-Identifier: GPL-2.0
"""What the kernel's log says about defects, and how this program complains."""

import re


class Unusable(Exception):
    """What was asked for can't be done; the text says why, and what to do."""


# A defect begins with a line like these, after the time and the processor or thread.
FIRST_LINE = re.compile(r"""
    ^ (?: \[ \s* \d+\.\d+ \] (?: \[ [^]]* \] )? \s* )?
    (?: Oops\b | BUG: | kernel\ BUG\ at | Kernel\ panic | general\ protection\ fault | invalid\ opcode:
      | divide\ error: | double\ fault: | stack\ segment: | Unable\ to\ handle | int3:
      | WARNING:\ (?= .* (?: \ at\ | CPU | PID | lock | RCU | context | irq | deadlock ) )
      | KASAN: | UBSAN: | KFENCE: | KCSAN: | refcount_t: | ODEBUG: | DEBUG_LOCKS_WARN_ON
      | INFO:\ (?: possible | task\ \S+\ blocked | rcu | trying\ to\ register\ non-static | lockdep )
      | rcu:\ INFO: | watchdog:\ BUG | watchdog:.*LOCKUP | workqueue:.*lockup
      | possible\ (?: recursive | circular | irq ) | suspicious\ RCU | list_(?:add|del)\ corruption
      | sleeping\ function\ called | scheduling\ while\ atomic | Voluntary\ context\ switch
      | rust_kernel:\ panicked | rust\ panicked | \S+:\ panicked\ at
      | kmemleak:\ \d+\ new\ suspected | unreferenced\ object | Slab\ .*\ (?: Objects\ remaining ) | Bad\ page\ state
      | page_owner | unregister_netdevice:\ waiting | Fatal\ exception | soft\ lockup | Attempted\ to\ kill\ init )
    """, re.VERBOSE)

# How much of the log belongs to one report, at most, and what ends it before.
REPORT_LINES = 60
LAST_LINE = re.compile(r"---\[ end |^\S*\s*\]?\s*={20,}$")


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
