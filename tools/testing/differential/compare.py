# SPDX-License-Identifier: GPL-2.0
"""Parses the traces of two stacks, and compares them step by step."""

import dataclasses
import itertools
import re
import tomllib

LINE = re.compile(r"(?P<number>\d+) (?P<step>.*?) = (?P<result>\S+)(?P<fields>(?: \w+=\S*)*)$")
END = re.compile(r"end (?P<fields>.*)$")


@dataclasses.dataclass(frozen=True)
class Step:
    """A line of a trace: the request, and all results by name."""

    text: str
    values: dict

    def __str__(self):
        return f"{self.text} = {' '.join(f'{name}={value}' for name, value in self.values.items())}"


def parse(text):
    """Returns the steps of a trace; the last step has the resources that were left at the end."""
    steps = []
    for line in text.splitlines():
        if match := LINE.match(line):
            fields = dict(field.split("=", 1) for field in match["fields"].split())
            steps.append(Step(f"{match['number']} {match['step']}", {"result": match["result"], **fields}))
        elif match := END.match(line):
            steps.append(Step("end", {"left": match["fields"]}))
    return steps


def unexpected(steps):
    """Returns the steps whose results differ from those that the model expects."""
    return [step for step in steps
            if "unexpected" in step.values or step.values.get("bitmap", "open") not in ("expected", "open")]


HOW = {
    "any": lambda _c, _rust: True,
    "more": lambda c, rust: int(c) > int(rust),
}


@dataclasses.dataclass
class Rule:
    """A known difference, and its reason."""

    name: str
    reason: str
    step: str
    field: str
    how: str = "any"
    # The rule applies only if both stacks returned this result; empty for any result.
    result: str = ""
    seen: int = 0

    def explains(self, c, rust, field):
        """Returns whether the rule explains that FIELD of two steps differs."""
        results = {c.values["result"], rust.values["result"]} if self.result else {""}
        return (field == self.field and results == {self.result} and re.search(self.step, c.text)
                and HOW[self.how](c.values[field], rust.values[field]))


def read_rules(path):
    with open(path, "rb") as file:
        return [Rule(**table) for table in tomllib.load(file).get("difference", [])]


def explained(c, rust, rules):
    """Returns whether two steps differ only by known differences; counts those."""
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
    """Returns the index of the first step with an unknown difference, or None."""
    for index, (one, other) in enumerate(itertools.zip_longest(c, rust)):
        if one != other and not explained(one, other, rules):
            return index
    return None


def report(c, rust, index, before=12):
    """Returns lines that describe a difference: the steps before it, the step on both stacks."""
    lines = [f"  both  {step}" for step in c[max(0, index - before):index]]
    for name, steps in (("C", c), ("Rust", rust)):
        lines.append(f"  {name:<5} {steps[index] if index < len(steps) else 'has ended'}")
    return lines
