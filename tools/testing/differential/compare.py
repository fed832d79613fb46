# SPDX-License-Identifier: GPL-2.0
"""Reads traces of two stacks, and compares them step by step."""

import dataclasses
import itertools
import re
import tomllib

LINE = re.compile(r"(?P<number>\d+) (?P<step>.*?) = (?P<result>\S+)(?P<fields>(?: \w+=\S+)*)$")
END = re.compile(r"end (?P<fields>.*)$")


@dataclasses.dataclass(frozen=True)
class Step:
    """One line: what was done, and all that came back, by name."""

    text: str
    values: dict

    def __str__(self):
        return f"{self.text} = {' '.join(f'{name}={value}' for name, value in self.values.items())}"


def parse(text):
    """The steps of a trace; the last one is what was left at its end."""
    steps = []
    for line in text.splitlines():
        if match := LINE.match(line):
            fields = dict(field.split("=", 1) for field in match["fields"].split())
            steps.append(Step(f"{match['number']} {match['step']}", {"result": match["result"], **fields}))
        elif match := END.match(line):
            steps.append(Step("end", {"left": match["fields"]}))
    return steps


def unexpected(steps):
    """The steps in which a stack did not do what the model expects of it."""
    return [step for step in steps
            if "unexpected" in step.values or step.values.get("bitmap", "open") not in ("expected", "open")]


HOW = {
    "any": lambda _c, _rust: True,
    "more": lambda c, rust: int(c) > int(rust),
}


@dataclasses.dataclass
class Rule:
    """A difference that is known, and why there is one."""

    name: str
    reason: str
    step: str
    field: str
    how: str = "any"
    # What both stacks must have returned, if it matters.
    result: str = ""
    seen: int = 0

    def explains(self, c, rust, field):
        """Whether it is the reason why FIELD of two steps differs."""
        results = {c.values["result"], rust.values["result"]} if self.result else {""}
        return (field == self.field and results == {self.result} and re.search(self.step, c.text)
                and HOW[self.how](c.values[field], rust.values[field]))


def read_rules(path):
    with open(path, "rb") as file:
        return [Rule(**table) for table in tomllib.load(file).get("difference", [])]


def explained(c, rust, rules):
    """Whether two steps are the same but for known differences, which are counted."""
    if c is None or rust is None or c.text != rust.text or c.values.keys() != rust.values.keys():
        return False
    used = []
    for field, value in c.values.items():
        if value != rust.values[field]:
            rule = next((r for r in rules if r.explains(c, rust, field)), None)
            if not rule:
                return False
            used.append(rule)
    for rule in used:
        rule.seen += 1
    return True


def first_difference(c, rust, rules):
    """The index of the first step which differs and should not; None if there is none."""
    for index, (one, other) in enumerate(itertools.zip_longest(c, rust)):
        if one != other and not explained(one, other, rules):
            return index
    return None


def report(c, rust, index, before=12):
    """What there is to say about a difference: the steps before, and both of the two."""
    lines = [f"  both  {step}" for step in c[max(0, index - before):index]]
    for name, steps in (("C", c), ("Rust", rust)):
        lines.append(f"  {name:<5} {steps[index] if index < len(steps) else 'has ended'}")
    return lines
