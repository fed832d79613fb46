# SPDX-License-Identifier: GPL-2.0
"""Tests of the comparison: different steps must never be taken for equal ones."""

import pathlib
import tempfile
import unittest

import compare

SAME = """\
1 open container0 = 0 locked=0
2 container0 info argsz=24 [ee] in 24 bytes = 0 out=18[00*7] locked=0
3 container0 dirty flags=0x4 bitmap(0x1000) = 0 bitmap=expected count=2 locked=4
end locked=0 vfio_pci:0
"""

RULES = """\
[[difference]]
name = "counts too much"
step = 'container\\d dirty .*bitmap\\('
field = "count"
how = "more"
reason = "seen"
"""


def difference(c, rust, rules=()):
    return compare.first_difference(compare.parse(c), compare.parse(rust), rules)


class Comparison(unittest.TestCase):
    def setUp(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(RULES)
            file.flush()
            self.rules = compare.read_rules(pathlib.Path(file.name))

    def test_same(self):
        self.assertEqual(len(compare.parse(SAME)), 4)
        self.assertIsNone(difference(SAME, SAME))

    def test_each_value_counts(self):
        for old, new in (("2 container0 info argsz=24", "2 container0 info argsz=25"),
                         ("24 bytes = 0", "24 bytes = EINVAL"),
                         ("18[00*7]", "19[00*7]"), ("18[00*7] locked=0", "18[00*7] locked=4")):
            self.assertEqual(difference(SAME, SAME.replace(old, new)), 1, new)
            self.assertEqual(difference(SAME.replace(old, new), SAME), 1, new)

    def test_a_field_more(self):
        self.assertEqual(difference(SAME, SAME.replace("1 open container0 = 0", "1 open container0 = 0 out=00")), 0)

    def test_an_end_before_its_time(self):
        self.assertEqual(difference(SAME, "".join(SAME.splitlines(True)[:2])), 2)
        self.assertEqual(difference("", SAME), 0)

    def test_what_is_left_counts(self):
        self.assertEqual(difference(SAME, SAME.replace("vfio_pci:0", "vfio_pci:1")), 3)

    def test_listed(self):
        self.assertIsNone(difference(SAME.replace("count=2", "count=3"), SAME, self.rules))
        self.assertEqual(self.rules[0].seen, 1)

    def test_listed_in_one_direction_only(self):
        self.assertEqual(difference(SAME, SAME.replace("count=2", "count=3"), self.rules), 2)

    def test_listed_for_one_field_only(self):
        self.assertEqual(difference(SAME.replace("locked=4", "locked=8"), SAME, self.rules), 2)
        both = SAME.replace("locked=4", "locked=8").replace("count=2", "count=3")
        self.assertEqual(difference(both, SAME, self.rules), 2)

    def test_listed_for_one_result_only(self):
        rule = compare.Rule("", "", "info", "locked", how="more", result="EFAULT")
        c = SAME.replace("24 bytes = 0 out=18[00*7] locked=0", "24 bytes = EFAULT out=18[00*7] locked=8")
        rust = c.replace("locked=8", "locked=4")
        self.assertIsNone(difference(c, rust, [rule]))
        self.assertEqual(difference(rust, c, [rule]), 1)
        self.assertEqual(difference(c.replace("EFAULT", "0"), rust.replace("EFAULT", "0"), [rule]), 1)

    def test_unexpected(self):
        self.assertEqual(compare.unexpected(compare.parse(SAME)), [])
        lost = compare.parse(SAME.replace("bitmap=expected", "bitmap=[00*8],least:01,most:01"))
        self.assertEqual(len(compare.unexpected(lost)), 1)
        wrong = compare.parse(SAME.replace("count=2", "unexpected=Is(Err(EINVAL))"))
        self.assertEqual(len(compare.unexpected(wrong)), 1)
        self.assertEqual(compare.unexpected(compare.parse(SAME.replace("bitmap=expected", "bitmap=open"))), [])


if __name__ == "__main__":
    unittest.main()
