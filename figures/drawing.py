"""Learning curves as a figure for a paper that stays readable in greyscale: lines also differ in dashes and markers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from errors import UsageError
from figures.curves import NAMES, Comparison, Group

SUFFIXES = (".png", ".pdf", ".svg")

_COLOURS = ("#0b4f8a", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d1f", "#000000", "#7f7f7f")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
_MARKS = "os^Dv*XP"
_COLUMNS = 4
_PANEL = 4.2, 3.3  # inches


def check_figure(path: Path) -> None:
    """Raise UsageError unless `path` is the name of a figure that can be written."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} is not a figure that can be written; its name must end with {', '.join(SUFFIXES)}")


def draw(comparison: Comparison, metric: str, remark: str = "") -> Figure:
    """Return a figure with a panel for each task: interquartile means over seeds, and their 95% intervals as bands.

    Args:
        comparison: the groups; a published one becomes a thin line with points.
        metric: what was measured, a name of metrics.jsonl.
        remark: a line below the figure, such as the protocol.
    """
    panels, labels = comparison.panels, comparison.labels
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    below = 0.15 + 0.25 * -(-(len(labels) + 1) // 2) + 0.25 * bool(remark)  # inches for the legend and the remark
    with matplotlib.rc_context({"text.parse_math": False, "svg.hashsalt": "LaRes"}):
        figure = Figure(figsize=(max(_PANEL[0] * columns, 6.4), _PANEL[1] * rows + below))
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, panel in zip(axes.flat, panels, strict=False):
            for group in comparison.groups:
                if group.task == panel:
                    _draw_group(axis, group, labels.index(group.label))
            axis.set(title=panel, xlabel="env steps")
            if metric.endswith("success_rate"):
                axis.set_ylim(-0.05, 1.05)
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel(NAMES.get(metric, metric))
        _explain(figure, axes.flat, labels, remark, below)
    return figure


def _draw_group(axis: Axes, group: Group, number: int) -> None:
    steps, mean, bounds = group.line()
    colour = _COLOURS[number % len(_COLOURS)]
    every = 0.13 if len(steps) > 1 else 1  # a share of the line's length, which is zero for a single point
    style: dict[str, Any] = {"linestyle": _DASHES[number % len(_DASHES)], "linewidth": 2.0, "markevery": every}
    if group.published:
        style = {"linestyle": "-", "linewidth": 0.8, "markerfacecolor": "white"}
    axis.plot(steps, mean, color=colour, marker=_MARKS[number % len(_MARKS)], markersize=5, label=group.label, **style)
    if bounds and not group.published:
        axis.fill_between(steps, *bounds, color=colour, alpha=0.18, linewidth=0)
    rounds = [step for curve in group.curves for step in curve.rounds]
    if rounds:
        axis.plot(
            rounds, [0.0] * len(rounds), linestyle="", marker="|", markersize=9, color=colour, label="search rounds",
            transform=axis.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip


def _explain(figure: Figure, axes: Iterable[Axes], labels: Sequence[str], remark: str, below: float) -> None:
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    shown = [label for label in (*labels, "search rounds") if label in handles]
    height = below / figure.get_figheight()
    line = 0.25 / figure.get_figheight()
    figure.legend(
        [handles[label] for label in shown], shown, loc="lower center", ncols=2, frameon=False,
        bbox_to_anchor=(0.5, line if remark else 0),
    )  # fmt: skip
    if remark:
        figure.text(0.5, 0.3 * line, remark, ha="center", va="bottom", fontsize=8, color="#444444")
    figure.tight_layout(rect=(0, height, 1, 1))
