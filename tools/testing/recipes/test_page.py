# SPDX-License-Identifier: GPL-2.0
"""Tests of page.py."""

import unittest

import main
import page

TEXT = """\
A page
======

Text::

    not a command

.. code-block:: sh
   :class: host

   make stock
   cd build

.. code-block:: c

   int x;

.. code-block:: sh
   :class: guest

   cat <<END
     two

   END

.. code-block:: text
   :class: output

   group ... of
     three
"""


class Blocks(unittest.TestCase):
    def test_only_marked_blocks_are_taken(self):
        host, guest = page.blocks(TEXT)
        self.assertEqual(host, page.Block("host", "make stock\ncd build\n"))
        self.assertEqual(guest, page.Block("guest", "cat <<END\n  two\n\nEND\n", "group ... of\n  three\n"))

    def test_the_name_is_the_first_command(self):
        self.assertEqual(page.Block("host", "make \\\n  stock\n").name, "make")

    def test_output_needs_commands(self):
        with self.assertRaises(page.Invalid):
            page.blocks(".. code-block:: text\n   :class: output\n\n   a\n")

    def test_two_outputs_are_refused(self):
        with self.assertRaises(page.Invalid):
            page.blocks(TEXT + "\n.. code-block:: text\n   :class: output\n\n   a\n")

    def test_unknown_class_is_refused(self):
        with self.assertRaises(page.Invalid):
            page.blocks(TEXT.replace(":class: guest", ":class: gest"))

    def test_same_names_are_refused(self):
        with self.assertRaises(page.Invalid):
            page.blocks(TEXT + "\n.. code-block:: sh\n   :class: guest\n\n   make stock\n")


class Pages(unittest.TestCase):
    def test_each_page_has_a_machine(self):
        self.assertEqual(main.pages(), sorted(main.MACHINES))

    def test_blocks_of_each_page_are_valid(self):
        for recipe in main.pages():
            self.assertTrue(page.blocks(main.source(recipe)), recipe)


class Output(unittest.TestCase):
    def test_dots_stand_for_any_text(self):
        self.assertTrue(page.matches("a ... c\n", "a b b c\n"))
        self.assertTrue(page.matches("...\nc\n...\n", "a\nb\nc\nd\n"))
        self.assertFalse(page.matches("a ... c\n", "a b b\n"))

    def test_a_line_of_dots_stands_for_any_number_of_lines(self):
        for printed in ("a\nd\n", "a\nb\nd\n", "a\nb\nc\nd\n"):
            self.assertTrue(page.matches("a\n...\nd\n", printed))
        self.assertTrue(page.matches("...\na\n...\n", "a\n"))
        self.assertFalse(page.matches("a\n...\nd\n", "ab\nd\n"))
        self.assertFalse(page.matches("a\n...\nd\n", "a\nbd\n"))

    def test_all_of_it_is_compared(self):
        self.assertFalse(page.matches("b\n", "a\nb\n"))
        self.assertFalse(page.matches("a\n", "a\nb\n"))

    def test_width_of_columns_is_free(self):
        self.assertTrue(page.matches("a  b\n", "a     b  \n"))
        self.assertFalse(page.matches("a  b\n", "ab\n"))

    def test_special_characters_stand_for_themselves(self):
        self.assertTrue(page.matches("a.b (c)*\n", "a.b (c)*\n"))
        self.assertFalse(page.matches("a.b\n", "axb\n"))

    def test_differences_are_told(self):
        block = page.Block("guest", "x\n", "a\n")
        self.assertEqual(block.differences("a\n"), [])
        self.assertEqual(block.differences("b\n"), ["the page shows:", "a", "the commands printed:", "b"])


if __name__ == "__main__":
    unittest.main()
