# SPDX-License-Identifier: GPL-2.0
"""Changes flattened device trees (chapter 5 of the Devicetree Specification)."""

import struct

BEGIN_NODE, END_NODE, PROPERTY, NOP, END = 1, 2, 3, 4, 9


def without_property(blob, units, name):
    """Returns BLOB without the property NAME of the nodes UNITS, named without their addresses, and
    without the free space at its end: QEMU doubles the size of a tree, and Linux accepts 2 MiB."""
    blob = bytearray(compact(blob))
    at, strings = struct.unpack_from(">8xII", blob)
    nodes = []
    while (token := number(blob, at)) != END:
        start, at = at, at + 4
        if token == BEGIN_NODE:
            nodes.append(string(blob, at))
            at += aligned(len(nodes[-1]) + 1)
        elif token == END_NODE:
            nodes.pop()
        elif token == PROPERTY:
            length, name_at = number(blob, at), number(blob, at + 4)
            at += 8 + aligned(length)
            if nodes[-1].partition("@")[0] in units and string(blob, strings + name_at) == name:
                blob[start:at] = struct.pack(">I", NOP) * ((at - start) // 4)
    return bytes(blob)


def compact(blob):
    structure, strings, strings_size, structure_size = struct.unpack_from(">8xII16xII", blob)
    end = max(structure + structure_size, strings + strings_size)
    return blob[:4] + struct.pack(">I", end) + blob[8:end]


def number(blob, at):
    return struct.unpack_from(">I", blob, at)[0]


def string(blob, at):
    return blob[at:blob.index(b"\0", at)].decode()


def aligned(length):
    return length + -length % 4
