# SPDX-License-Identifier: GPL-2.0
"""Tests of the reports: a figure must stand in the column of its modules, and a missed target first."""

import pathlib
import tempfile
import unittest

import progress
import report

TWO_WAYS = """\
round 1 of 2
stack c
one page: map\t600 602 601
pin_pages(512): pin\t1000
stack rust
one page: map\t500
pin_pages(512): pin\t200
round 2 of 2
stack rust
one page: map\t510 505
stack c
one page: map\t604 603
"""


def written(text, reader):
    """Reads a file that has the text."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "part"
        path.write_text(text)
        return reader(path)


class TwoWays(unittest.TestCase):
    def setUp(self):
        self.rows = list(report.rows(written(TWO_WAYS, report.read)))

    def test_medians_of_all_rounds(self):
        first = self.rows[0]
        self.assertEqual((first["name"], first["c"], first["rust"]), ("one page: map", 602, 505))

    def test_missed_first(self):
        missed = {**self.rows[1], "name": "slow", "met": False}
        lines = list(report.missed_first([("instructions", self.rows), ("nanoseconds", [missed])]))
        self.assertEqual(lines[0], "1 of 3 figures missed their targets.")
        self.assertTrue(lines[2].startswith("nanoseconds"))
        self.assertTrue(lines[3].startswith("slow"))
        self.assertTrue(lines[3].endswith("MISSED"))
        self.assertEqual([line.split(":")[0] for line in lines if ": " in line], ["one page", "pin_pages(512)"])

    def test_nothing_missed(self):
        lines = list(report.missed_first([("instructions", self.rows)]))
        self.assertEqual(lines[0], "0 of 2 figures missed their targets.")
        self.assertEqual(sum(line.startswith("instructions") for line in lines), 1)


class Progress(unittest.TestCase):
    def test_lines(self):
        times = iter([0, 1, 62, 63, 64, 65, 66])
        said = list(progress.lines("costs", TWO_WAYS.splitlines(True)[:4], lambda: next(times)))
        self.assertEqual([line for line, _ in said], TWO_WAYS.splitlines(True)[:4])
        self.assertEqual([text for _, text in said if text], [
            "bench: 0:01 costs: round 1 of 2: c: begins",
            "bench: 1:02 costs: round 1 of 2: c: one page: map",
            "bench: 1:03 costs: round 1 of 2: c: pin_pages(512): pin",
        ])


if __name__ == "__main__":
    unittest.main()
