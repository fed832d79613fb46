# SPDX-License-Identifier: GPL-2.0
"""Draws charts as SVG, for light and dark pages; matplotlib's drawings are for one of them."""

import math
from xml.etree import ElementTree

WIDTH = 820
LINE = 19
# X coordinates of the start and the end of the bars, and the ratio at the end.
LEFT, RIGHT, MOST = 380, 720, 1.25

LIGHT = {"paper": "#fff", "ink": "#1f2328", "faint": "#d0d7de", "good": "#2f77bc", "bad": "#c4521b",
         "other": "#6e7781"}
DARK = {"paper": "#0d1117", "ink": "#e6edf3", "faint": "#3d444d", "good": "#58a6e0", "bad": "#f0883e",
        "other": "#8b949e"}


def style():
    """Returns the CSS rules for light pages, and those that override them on dark pages."""
    return f"""
text {{ font-family: sans-serif; font-size: 12px }}
.title {{ font-weight: bold }}
.right {{ text-anchor: end }}
.middle {{ text-anchor: middle }}
.target {{ stroke-width: 2 }}
polyline {{ stroke-width: 2 }}
{colors(LIGHT)}
@media (prefers-color-scheme: dark) {{
{colors(DARK)}
}}
"""


def colors(of):
    return f"""text {{ fill: {of["ink"]} }}
.paper {{ fill: {of["paper"]} }}
.grid {{ stroke: {of["faint"]} }}
.target {{ stroke: {of["ink"]} }}
.good {{ fill: {of["good"]} }}
.bad {{ fill: {of["bad"]} }}
.other {{ fill: {of["other"]} }}
polyline.good {{ fill: none; stroke: {of["good"]} }}
polyline.bad {{ fill: none; stroke: {of["bad"]} }}"""


def short(value):
    """Formats a number with two significant digits, or two decimals from 0.1 on."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


class Chart:
    """An SVG drawing of fixed width and given height."""

    def __init__(self, title, height):
        self.svg = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg", width=str(WIDTH),
                                       height=str(height), viewBox=f"0 0 {WIDTH} {height}", role="img")
        self.add("title", title)
        self.add("style", style())
        self.add("rect", width="100%", height="100%", **{"class": "paper"})
        self.text(10, 20, title, "title")

    def add(self, tag, text=None, **attributes):
        element = ElementTree.SubElement(self.svg, tag, {name: str(value) for name, value in attributes.items()})
        element.text = text

    def text(self, x, y, text, kind="left"):
        self.add("text", text, x=round(x, 1), y=round(y, 1), **{"class": kind})

    def line(self, start, end, kind):
        (x1, y1), (x2, y2) = start, end
        self.add("line", x1=round(x1, 1), y1=round(y1, 1), x2=round(x2, 1), y2=round(y2, 1), **{"class": kind})

    def write(self, path):
        ElementTree.indent(self.svg)
        path.write_text(ElementTree.tostring(self.svg, encoding="unicode") + "\n")


def ratios(title, rows):
    """Draws a bar for each ratio, with a mark at its target."""
    top = 50
    bottom = top + LINE * len(rows)
    chart = Chart(title, bottom + 30)

    def x(ratio):
        return LEFT + min(ratio, MOST) / MOST * (RIGHT - LEFT)

    for ratio in (0, 0.25, 0.5, 0.75, 1):
        chart.line((x(ratio), top - 4), (x(ratio), bottom), "grid")
        chart.text(x(ratio), top - 10, f"{ratio:g}", "middle")
    for number, row in enumerate(rows):
        y = top + LINE * number
        kind = "good" if row["met"] else "bad"
        chart.text(LEFT - 8, y + 13, row["name"], "right")
        chart.add("rect", x=LEFT, y=y + 3, width=round(max(x(row["ratio"]) - LEFT, 1), 1), height=LINE - 6,
                  **{"class": kind})
        chart.line((x(row["target"]), y + 1), (x(row["target"]), y + LINE - 1), "target")
        verdict = "" if row["met"] else ", missed"
        chart.text(RIGHT + 8, y + 13, f"{short(row['ratio'])}{verdict}")
    chart.text(10, bottom + 20, "Blue: ours against C, where the target is met; orange: where it is missed. "
                                "The mark is the target.")
    return chart


def groups(title, names, rows, most=2):
    """Draws a group of bars for each row, with a line at 1. ROWS: (name, ratio of each of NAMES).

    A ratio that is None has no bar. Bars end at MOST; the figure beside each one is exact.
    """
    kinds = ("good", "other", "bad")
    thick, gap, top = 11, 12, 66
    step = thick * len(names) + gap
    bottom = top + step * len(rows)
    chart = Chart(title, bottom + 16)

    def x(ratio):
        return LEFT + min(ratio, most) / most * (RIGHT - LEFT)

    for ratio in (at / 2 for at in range(2 * most + 1)):
        chart.line((x(ratio), top - 4), (x(ratio), bottom), "target" if ratio == 1 else "grid")
        chart.text(x(ratio), top - 8, f"{ratio:g}", "middle")
    for at, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        left = 10 + 150 * at
        chart.add("rect", x=left, y=31, width=10, height=10, **{"class": kind})
        chart.text(left + 16, 40, name)
    for number, (name, ratios) in enumerate(rows):
        y = top + step * number + gap / 2
        chart.text(LEFT - 8, y + step / 2 - 2, name, "right")
        for ratio, kind in zip(ratios, kinds, strict=True):
            if ratio is not None:
                width = round(max(x(ratio) - LEFT, 1), 1)
                chart.add("rect", x=LEFT, y=round(y, 1), width=width, height=thick - 2, **{"class": kind})
                chart.text(LEFT + width + 5, y + 9, short(ratio))
            y += thick
    return chart


def growth(title, below, points):
    """Draws two lines over a growing number, with logarithmic scales. POINTS: (number, C, ours)."""
    left, right, top, bottom = 90, 640, 50, 330
    chart = Chart(title, bottom + 60)
    numbers = [number for number, *_ in points]
    values = [value for _, *values in points for value in values]
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)

    def x(number):
        return left + (right - left) * math.log(number / numbers[0]) / math.log(numbers[-1] / numbers[0])

    def y(value):
        return bottom - (bottom - top) * (math.log10(value) - powers[0]) / (powers[-1] - powers[0])

    for power in powers:
        chart.line((left, y(10**power)), (right, y(10**power)), "grid")
        chart.text(left - 8, y(10**power) + 4, f"{10**power:,}", "right")
    for number in numbers:
        chart.text(x(number), bottom + 20, f"{number:,}", "middle")
    for column, name, kind in ((1, "C", "bad"), (2, "ours", "good")):
        path = " ".join(f"{x(point[0]):.1f},{y(point[column]):.1f}" for point in points)
        chart.add("polyline", points=path, **{"class": kind})
        for point in points:
            chart.add("circle", cx=round(x(point[0]), 1), cy=round(y(point[column]), 1), r=3, **{"class": kind})
        last = points[-1]
        chart.text(right + 10, y(last[column]) + 4, f"{name}: {last[column]:,.0f}")
    chart.text((left + right) / 2, bottom + 42, below, "middle")
    return chart
