# SPDX-License-Identifier: GPL-2.0
"""The blocks of commands of a page of the documentation."""

import dataclasses
import re

BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\S+)\n"
    r"(?P<options>(?:   :\S+:.*\n)*)"
    r"\n"
    r"(?P<text>(?:(?:   .*)?\n)+)",
    re.M,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Commands, where they run ("host", where the project is built, or "guest", the machine with the
    device), and the output that the page shows for them, if any."""

    where: str
    commands: str
    output: str | None = None

    @property
    def name(self):
        """The first command, which is unique on its page."""
        first = self.commands.splitlines()[0]
        return first.removesuffix("\\").rstrip()

    def differences(self, printed):
        """Returns lines that tell how the output differs from the page; none if it doesn't."""
        if self.output is None or matches(self.output, printed):
            return []
        return ["the page shows:", *self.output.splitlines(), "the commands printed:", *printed.splitlines()]


class Invalid(Exception):
    """A page that can't be tested."""


def matches(pattern, printed):
    """Tells whether an output is as on the page.

    There, "..." stands for any text, and a line "..." for any number of lines, also for none.
    """
    expected = "".join(
        r"(?:[^\n]*\n)*?" if line == "..." else line_expression(line) + r"\n"
        for line in pattern.strip("\n").split("\n")
    )
    lines = "\n".join(line.rstrip() for line in printed.splitlines())
    return re.fullmatch(expected, lines.strip("\n") + "\n", re.S) is not None


def line_expression(line):
    """Returns a regular expression for a line of a page.

    The width of a column depends on the longest word in it, which may be in a line that is not shown.
    """
    parts = (r"[ \t]+".join(map(re.escape, re.split(r"[ \t]+", part))) for part in line.split("..."))
    return ".*?".join(parts)


def option(options, name):
    """Returns the value of an option of a block."""
    found = re.search(rf"^   :{name}: *(.*)$", options, re.M)
    return found and found[1]


def dedent(text):
    """Returns the text of a block without its indentation and without empty lines at its end."""
    return "".join(f"{line[3:]}\n" for line in text.rstrip().splitlines())


def blocks(text):
    """Returns the blocks of a page, in order."""
    found = []
    for match in BLOCK.finditer(text):
        kind, content = option(match["options"], "class"), dedent(match["text"])
        if kind in ("host", "guest"):
            found.append(Block(kind, content))
        elif kind == "output":
            if not found or found[-1].output is not None:
                raise Invalid(f"an output without commands: {content}")
            found[-1] = dataclasses.replace(found[-1], output=content)
        elif kind is not None:
            raise Invalid(f"the class is host, guest or output: {kind}")
    names = [block.name for block in found]
    if len({*names}) < len(names):
        raise Invalid("two blocks begin with the same command")
    return found
