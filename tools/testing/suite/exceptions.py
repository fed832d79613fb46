# SPDX-License-Identifier: GPL-2.0
"""The exceptions from the rule that each row and test must run on both stacks."""

import tomllib


class Exceptions:
    """The exceptions in exceptions.toml, with their reasons."""

    def __init__(self, text):
        data = tomllib.loads(text)
        self.rows_without_c = {row: entry["reason"] for entry in data["rows-without-c"] for row in entry["rows"]}
        self.tests_only_on_c = {test: entry["reason"] for entry in data["tests-only-on-c"] for test in entry["tests"]}
