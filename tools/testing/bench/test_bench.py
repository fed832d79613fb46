# SPDX-License-Identifier: GPL-2.0
"""Tests of the reports: a figure must stand in the column of its modules, and a missed target first."""

import pathlib
import tempfile
import unittest
from xml.etree import ElementTree

import charts
import comparison
import guard
import progress
import report
import report_ways
import tables

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

FOUR_WAYS = """\
round 1 of 1
stack c
one page: map\t600
64 MiB of THP: map\t2000000
64 MiB of memfd: map\t2500000
64 MiB of THP: unmap\t4000000
bytes a mapping of one page\t90
attach+detach\t100
pin_pages(512): pin\t1000
stack compat-c
one page: map\t900
64 MiB of THP: map\t1000000
pin_pages(512): pin\t3000
stack iommufd-c
one page: map\t1000
64 MiB of THP: map\t1001000
64 MiB of memfd, by file: map\t500000
64 MiB of scattered 4 KiB pages: map\t500000
attach+detach\t50
pin_pages(512): pin\t3100
stack rust
one page: map\t500
64 MiB of THP: map\t1500000
bytes a mapping of one page\t90
stack compat-rust
pin_pages(512): pin\t3300
stack iommufd-rust
attach+detach\t60
"""


def written(text, reader):
    """Reads a file that has the text."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "part"
        path.write_text(text)
        return reader(path)


class Guard(unittest.TestCase):
    RECORDED = {"kernel": "7.3", "instructions": {"map": 1000, "unmap": 2000}}

    def judge(self, text):
        judged = list(guard.judge(guard.read(text), self.RECORDED))
        return [line for lines, _ in judged for line in lines], [passed for _, passed in judged]

    def test_three_percent_more_pass(self):
        lines, passed = self.judge("7.3\nmap\t1100 1030 2000\nunmap\t2000\n")
        self.assertEqual(lines, ["ok      map", "ok      unmap"])
        self.assertEqual(passed, [True, True])

    def test_more_than_that_fails_and_says_by_how_much(self):
        lines, passed = self.judge("7.3\nmap\t1031\nunmap\t2000\n")
        self.assertEqual(passed, [False, True])
        self.assertEqual(lines[0], "not ok  map")
        self.assertIn("1,031 instructions, 3.1% more than the recorded 1,000", lines[1])
        self.assertIn("guard --record", lines[2])

    def test_other_kernel_is_named(self):
        lines, _ = self.judge("7.4\nmap\t2000\nunmap\t2000\n")
        self.assertIn("those of Linux 7.3, this is 7.4", lines[3])

    def test_other_kernel_may_differ_by_more(self):
        _, passed = self.judge("7.4\nmap\t1140\nunmap\t2320\n")
        self.assertEqual(passed, [True, False])

    def test_figures_are_compared_by_name(self):
        _, passed = self.judge("7.3\nmap\t1000\npin\t5\n")
        self.assertEqual(passed, [True, False, False])

    def test_less_has_to_be_recorded(self):
        lines, passed = self.judge("7.3\nmap\t960\nunmap\t2000\n")
        self.assertEqual(passed, [False, True])
        self.assertIn("4.0% less than the recorded 1,000", lines[1])
        self.assertIn("guard --record", lines[2])


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


class Ways(unittest.TestCase):
    def setUp(self):
        self.rows = list(report_ways.rows(written(FOUR_WAYS, report_ways.read)))
        self.by_name = {row["name"]: row for row in self.rows}

    def test_columns(self):
        row = self.by_name["one page: map"]
        self.assertEqual([row[way] for way in report_ways.WAYS], [600, 500, 900, 1000])
        row = self.by_name["attach+detach"]
        self.assertEqual([row[way] for way in report_ways.WAYS], [100, None, None, 50])
        self.assertEqual(row["iommufd-rust"], 60)

    def test_unknown_way(self):
        with self.assertRaises(KeyError):
            written("stack other\none page: map\t1\n", report_ways.read)

    def test_figure_without_way(self):
        with self.assertRaises(AttributeError):
            written("one page: map\t1\n", report_ways.read)

    def test_least(self):
        self.assertEqual(report_ways.least(self.by_name["one page: map"]), ["rust"])
        # A thousandth is no difference.
        self.assertEqual(report_ways.least(self.by_name["64 MiB of THP: map"]), ["compat-c", "iommufd-c"])

    def test_behind_first(self):
        lines = list(report_ways.report(self.rows))
        self.assertTrue(lines[0].startswith("In 1 of 9 figures another way takes less"))
        self.assertTrue(lines[3].startswith("64 MiB of THP: map"))
        self.assertEqual(lines[3].count("*"), 2)
        self.assertEqual(sum(line.startswith("64 MiB of THP: map") for line in lines), 1)

    def test_spread(self):
        rows = report_ways.rows({"c": {"figure": [100, 90, 110]}, "rust": {"figure": [5, 5]}})
        self.assertEqual([row["spread"] for row in rows], [0.2])


class Page(unittest.TestCase):
    def setUp(self):
        self.rows = list(report_ways.rows(written(FOUR_WAYS, report_ways.read)))
        self.tables = comparison.tables(self.rows)

    def test_least_is_bold(self):
        line = next(line for line in self.tables["small"].splitlines() if line.startswith("one page: map"))
        self.assertEqual(line.split("map", 1)[1].split(), ["600", "**500", "(0.83)**", "900", "(1.50)", "1,000",
                                                           "(1.67)"])

    def test_figure_of_one_way_is_not_bold(self):
        line = next(line for line in self.tables["map"].splitlines() if line.startswith("64 MiB of memfd, by file"))
        # It is compared with C by address.
        self.assertEqual(line.split("file", 1)[1].split(), ["–", "–", "–", "0.50", "(0.20)"])

    def test_each_figure_is_in_a_table(self):
        for row in self.rows:
            name = row["name"].rsplit(":")[0].removeprefix("bytes ")
            self.assertTrue(any(name in text for text in self.tables.values()), row["name"])

    def test_requests_for_one_page_are_not_large(self):
        self.assertNotIn("one page", self.tables["map"])
        self.assertNotIn("pin_pages", self.tables["unmap"])

    def test_core(self):
        lines = self.tables["core"].splitlines()
        self.assertTrue(any("50 → 60 (1.20)" in line for line in lines))
        self.assertTrue(any("3,000 → 3,300 (1.10)" in line for line in lines))

    def test_charts(self):
        drawn = comparison.drawings(self.rows)
        self.assertEqual(set(drawn), {"ways-map", "ways-unmap", "ways-pins"})
        texts = [element.text for element in drawn["ways-map"].svg.iter("text")]
        self.assertIn("one page: map", texts)
        self.assertIn("1.67", texts)
        self.assertIn("64 MiB of memfd, by file: map", texts)
        # There is no figure of C to compare with.
        self.assertNotIn("64 MiB of scattered 4 KiB pages: map", texts)


class Groups(unittest.TestCase):
    def test_bar_ends_within_the_chart(self):
        chart = charts.groups("title", ("a", "b", "c"), [("row", [0.5, None, 7.0])])
        svg = ElementTree.fromstring(ElementTree.tostring(chart.svg))
        space = "{http://www.w3.org/2000/svg}"
        bars = [element for element in svg.iter(f"{space}rect") if element.get("x") == str(charts.LEFT)]
        widths = [float(bar.get("width")) for bar in bars]
        self.assertEqual(widths, [(charts.RIGHT - charts.LEFT) / 4, charts.RIGHT - charts.LEFT])
        self.assertIn("7.00", [element.text for element in svg.iter(f"{space}text")])


class Tables(unittest.TestCase):
    def test_replace(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.rst"
            page.write_text("a\n\n.. begin one\n\nold\n\n.. end one\n\nb\n")
            tables.replace(page, {"one": "new"})
            self.assertEqual(page.read_text(), "a\n\n.. begin one\n\nnew\n\n.. end one\n\nb\n")
            with self.assertRaises(SystemExit):
                tables.replace(page, {"two": "new"})

    def test_empty_first_cell(self):
        self.assertEqual(tables.table(["a", "b"], [["", "1"]]).splitlines()[3], "\\  1")


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
