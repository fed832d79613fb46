# SPDX-License-Identifier: GPL-2.0
"""The tables and charts of Documentation/comparison.rst, from the rows of report_ways.py."""

import re

import charts
from report_ways import WAYS, least
from tables import number, table

NAMES = ("C type 1", "Rust type 1", "compatibility mode", "IOMMUFD")
# The unit of large requests.
MILLION = 1e6
LARGE = re.compile(r"(.*): (map|unmap|unmap all at once|close all)")
MEMORY = re.compile(r"bytes .*|.*: kernel memory in bytes")
PAGE_TABLES = re.compile(r"(.*): page-table pages")
PINS = re.compile(r"(pin_pages|dma_rw).*")
LATENCY = re.compile(r"worst .*")
ATTACH = re.compile(r"open .*|attach.*")
BY_FILE = ", by file"
BARS = ("Rust type 1", "compatibility mode", "IOMMUFD")


def is_small(name):
    return name.startswith("one page")


def is_large(name):
    """Returns whether a figure is that of a request for much memory, or for many pages."""
    return LARGE.fullmatch(name) is not None and not is_small(name) and PINS.fullmatch(name) is None


def with_base(rows):
    """Returns the rows with the figure with which each is compared: C's; by file, C's by address."""
    by_name = {row["name"]: row for row in rows}
    return [{**row, "base": by_name.get(row["name"].replace(BY_FILE, ""), row)["c"]} for row in rows]


def cell(row, way, unit=1):
    """Returns the figure of a way with its ratio to C; in bold if it is the least."""
    figure = row[way]
    if figure is None:
        return "–"
    text = charts.short(figure / unit) if unit > 1 else number(figure)
    if way != "c" and row["base"]:
        text += f" ({charts.short(figure / row['base'])})"
    return f"**{text}**" if way in least(row) and sum(row[other] is not None for other in WAYS) > 1 else text


def of(title, rows, name=lambda row: row["name"], unit=1):
    """Returns a table with a line for each row, a column for each way."""
    return table([title, *NAMES], [[name(row), *(cell(row, way, unit) for way in WAYS)] for row in rows])


def workload(row):
    return LARGE.fullmatch(row["name"])[1]


def tables(rows):
    """Returns the tables by name."""
    rows = with_base(rows)
    found = {"small": of("Instructions", [row for row in rows if is_small(row["name"])])}
    for figure in ("map", "unmap", "close all"):
        chosen = [row for row in rows if is_large(row["name"]) and LARGE.fullmatch(row["name"])[2].startswith(figure)]
        # "16,384 times 4 KiB" is unmapped in two ways.
        name = workload if figure != "unmap" else with_way
        found[figure.replace(" ", "-")] = of("Million instructions", chosen, name, MILLION)
    found["pins"] = of("Instructions", [row for row in rows if PINS.fullmatch(row["name"])])
    found["latency"] = of("Instructions", [row for row in rows if LATENCY.fullmatch(row["name"])])
    found["memory"] = of("Bytes", [row for row in rows if MEMORY.fullmatch(row["name"])],
                         lambda row: row["name"].removesuffix(": kernel memory in bytes").removeprefix("bytes "))
    found["page-tables"] = of("Page-table pages", [row for row in rows if PAGE_TABLES.fullmatch(row["name"])],
                              lambda row: PAGE_TABLES.fullmatch(row["name"])[1])
    found["attach"] = of("Instructions", [row for row in rows if ATTACH.fullmatch(row["name"])])
    found["core"] = core(rows)
    return found


def with_way(row):
    name, figure = LARGE.fullmatch(row["name"]).groups()
    return name if figure == "unmap" else f"{name}, all at once"


def core(rows):
    """Returns a table of IOMMUFD with the C and the Rust vfio.ko, where that takes part."""
    chosen = [row for row in rows if ATTACH.fullmatch(row["name"]) or PINS.fullmatch(row["name"])]
    lines = [[row["name"], *(change(row[f"{way}-c"], row[f"{way}-rust"]) for way in ("compat", "iommufd"))]
             for row in chosen]
    return table(["Instructions: C → Rust (ratio)", "compatibility mode", "IOMMUFD"], lines)


def change(c, ours):
    if c is None or ours is None:
        return "–"
    return f"{number(c)} → {number(ours)} ({charts.short(ours / c)})"


def ratios(row):
    """Returns the multiples of what type 1 in C takes."""
    return [row[way] / row["base"] if row[way] is not None else None for way in WAYS if way != "c"]


def drawings(rows):
    """Returns the charts by the names of their files."""
    groups = {
        "ways-map": ("Mapping: instructions, as multiples of type 1 in C",
                     lambda name: name.endswith(": map")),
        "ways-unmap": ("Unmapping and closing: instructions, as multiples of type 1 in C",
                       lambda name: name.endswith((": unmap", ": unmap all at once", ": close all"))),
        "ways-pins": ("Drivers that pin and read pages: instructions, as multiples of type 1 in C",
                      lambda name: PINS.fullmatch(name) and not name.endswith(": pin+unpin")),
    }
    found = {}
    for file, (title, wanted) in groups.items():
        chosen = [row for row in with_base(rows) if wanted(row["name"]) and row["base"]
                  and (file == "ways-pins" or not PINS.fullmatch(row["name"]))]
        found[file] = charts.groups(title, BARS, [(row["name"], ratios(row)) for row in chosen])
    return found
