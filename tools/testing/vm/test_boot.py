# SPDX-License-Identifier: GPL-2.0
"""Tests when a guest is started again: python3 -m unittest test_boot"""

import contextlib
import io
import unittest

import main
from qemu import Outcome

HUNG = Outcome(log="a line", timed_out=True)
CRASHED = Outcome(log="a line", complaint="qemu-system-x86_64: x.c:1: f: Assertion `x' failed.")
PANICKED = Outcome(log="[    1.000000] Kernel panic - not syncing: x", timed_out=True)
REFUSED = Outcome(complaint="qemu-system-x86_64: -device x: no such device")
BOOTED = Outcome(log="a line", control="booted\n", timed_out=True)


class Starts(unittest.TestCase):
    def check(self, outcomes, used):
        left = iter(outcomes)
        with contextlib.redirect_stderr(io.StringIO()):
            last = main.until_booted(lambda: next(left))
        self.assertIs(last, outcomes[used - 1])

    def test_lost_guest_is_started_again(self):
        self.check([HUNG, BOOTED], 2)
        self.check([CRASHED, HUNG, BOOTED], 3)

    def test_it_ends_at_some_time(self):
        self.check([HUNG, HUNG, HUNG, BOOTED], main.STARTS)

    def test_what_is_not_lost(self):
        for outcome in (PANICKED, REFUSED, BOOTED):
            self.check([outcome, BOOTED], 1)


if __name__ == "__main__":
    unittest.main()
