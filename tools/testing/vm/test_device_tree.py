# SPDX-License-Identifier: GPL-2.0
"""Tests how a property is removed from a device tree: python3 -m unittest test_device_tree"""

import struct
import unittest

from device_tree import BEGIN_NODE, END, END_NODE, NOP, PROPERTY, without_property

STRINGS = b"dma-coherent\0reg\0"
COHERENT, REG = 0, 13


def word(*values):
    return struct.pack(f">{len(values)}I", *values)


def begin(name):
    text = name + b"\0"
    return word(BEGIN_NODE) + text + b"\0" * (-len(text) % 4)


def tree(unit):
    """Returns a tree of two nodes, the second of which has UNIT, and both a register."""
    structure = begin(b"") + begin(b"pcie@10") + word(PROPERTY, 0, COHERENT) + word(END_NODE)
    structure += begin(b"smmuv3@9050000") + word(PROPERTY, 6, REG) + b"abcdef\0\0" + unit + word(END_NODE)
    structure += word(END_NODE, END)
    size = 40 + len(structure) + len(STRINGS)
    head = word(0xD00DFEED, size, 40, 40 + len(structure), 0, 17, 16, 0, len(STRINGS), len(structure))
    return head + structure + STRINGS


class DeviceTree(unittest.TestCase):
    def test_property_of_one_node(self):
        found = without_property(tree(word(PROPERTY, 0, COHERENT)), ["smmuv3"], "dma-coherent")
        self.assertEqual(found, tree(word(NOP, NOP, NOP)))

    def test_free_space(self):
        used = tree(b"")
        free = used[:4] + word(len(used) + 100) + used[8:] + bytes(100)
        self.assertEqual(without_property(free, ["iommu"], "dma-coherent"), used)

    def test_no_such_node(self):
        before = tree(word(PROPERTY, 0, COHERENT))
        self.assertEqual(without_property(before, ["iommu"], "dma-coherent"), before)


if __name__ == "__main__":
    unittest.main()
