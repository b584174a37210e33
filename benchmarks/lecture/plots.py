"""The page's plots: lines over epochs or rates, drawn as SVG files that follow the reader's light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ensemble_svc.report.panel import Panel, Range

COLOURS = ("#1b6ac9", "#d1495b", "#2a9d5c", "#b07d00", "#7d4fc4", "#0d9aa8", "#c45a1e", "#6b7480", "#a8327d")
"""One per line, told apart also in grey by their order in the legend."""
STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff; color: #1a2029 } text { fill: #1a2029 }
.grid { stroke: #e4e8ed } .axis { stroke: #9aa4b0 } .tick, .axis-label { fill: #57616d; font-size: 11.5px }
.guide { stroke: #9aa4b0; stroke-dasharray: 4 4; fill: none }
"""


@dataclass(frozen=True)
class Plot:
    """Lines over a common axis."""

    name: str
    """Of the file."""
    label: str
    lines: Mapping[str, Sequence[float]]
    """Heights by legend; a value that is not finite leaves a gap."""
    x_label: str
    y_label: str
    xs: Sequence[float] = ()
    """Of the values; 1, 2, … when empty."""
    log_x: bool = False
    log_y: bool = False
    guide: float | None = None
    """Height of a dashed line."""

    def svg(self) -> str:
        """The drawing."""
        across = list(self.xs) or list(range(1, 1 + max(len(line) for line in self.lines.values())))
        heights = [
            v for line in self.lines.values() for v in line if math.isfinite(v) and (v > 0 or not self.log_y)
        ]
        panel = Panel(
            _range(across, log=self.log_x, tight=True),
            _range([*heights, *([self.guide] if self.guide else [])], log=self.log_y),
            label=self.label,
            x_label=self.x_label,
            y_label=self.y_label,
            width=720,
        )
        styles = [STYLE]
        if self.guide is not None:
            panel.line([across[0], across[-1]], [self.guide] * 2, "guide")
        for number, (legend, line) in enumerate(self.lines.items()):
            colour = COLOURS[number % len(COLOURS)]
            styles.append(
                f".s{number} {{ stroke: {colour}; fill: none; stroke-width: 2 }} .d{number} "
                f"{{ fill: {colour} }}"
            )
            panel.line(across[: len(line)], line, f"s{number}", legend)
            if len(line) <= 15:
                panel.dots(across[: len(line)], line, f"d{number}", 2.5)
        return _with_legend(str(panel.drawing.markup()), list(self.lines), styles)


def _range(values: Sequence[float], *, log: bool, tight: bool = False) -> Range:
    if log:
        low, high = min(values), max(values)
        return Range(low / 1.1, high * 1.1, log=True) if low < high else Range(low / 2, high * 2, log=True)
    return Range.over(values, margin=0.01 if tight else 0.05)


def _with_legend(svg: str, names: Sequence[str], styles: Sequence[str]) -> str:
    """The drawing with its style sheet, and the lines' names below it."""
    head, _, body = svg.partition(">")
    view = head.split('viewBox="', 1)[1].split('"', 1)[0]
    width, height = (float(number) for number in view.split()[2:])
    rows, x, y = [], 46.0, height + 14
    for number, name in enumerate(names):
        length = 30 + 6.6 * len(name)
        if x + length > width:
            x, y = 46.0, y + 18
        rows.append(f'<line x1="{x:g}" y1="{y - 4:g}" x2="{x + 18:g}" y2="{y - 4:g}" class="s{number}"/>')
        rows.append(f'<text x="{x + 23:g}" y="{y:g}">{_escaped(name)}</text>')
        x += length + 14
    head = head.replace(
        f'viewBox="{view}"',
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {y + 8:g}" width="{width:g}"',
    )
    background = f'<rect width="{width:g}" height="{y + 8:g}" fill="#fff"/>'
    style = f"<style>{' '.join(' '.join(styles).split())}</style>"
    return f"{head}>{style}{background}{body.removesuffix('</svg>')}{''.join(rows)}</svg>\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
