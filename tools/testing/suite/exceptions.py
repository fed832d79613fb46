# SPDX-License-Identifier: GPL-2.0
"""What needs no test on both stacks, and why."""

import tomllib


class Exceptions:
    """The reasons in exceptions.toml."""

    def __init__(self, text):
        data = tomllib.loads(text)
        self.rows_without_c = {row: entry["reason"] for entry in data["rows-without-c"] for row in entry["rows"]}
        self.tests_only_on_c = {test: entry["reason"] for entry in data["tests-only-on-c"] for test in entry["tests"]}
