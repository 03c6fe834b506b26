"""Tables of groups of runs: results, probability of improvement, and env steps to success."""

import csv
import io
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from figures import statistics
from figures.curves import Comparison, Group

LEVELS = (0.5, 0.9)  # of success
Row = dict[str, Any]


def results(comparison: Comparison, success: bool = True) -> list[Row]:
    """Return a row for each group: its result with its 95% interval and, for success, env steps to each level.

    The interval is empty for a group whose tasks have one run each. Env steps are the median over runs; infinity means
    that no more than half of them got there.
    """
    return [_result(group, success) for group in comparison.groups]


def improvements(comparison: Comparison) -> list[Row]:
    """Return a row for each pair of groups on the same tasks: the probability that a run of one beats the other's."""
    rows = []
    for panel in comparison.panels:
        groups = [group for group in comparison.groups if group.task == panel and not group.published]
        for one, other in combinations(groups, 2):
            tasks = sorted(set(one.tasks) & set(other.tasks))
            samples = [group.finals(task) for task in tasks for group in (one, other)]
            if not samples:
                continue
            bounds = statistics.interval(statistics.probability_of_improvement, samples)
            rows.append(
                {
                    "task": panel,
                    "one": one.label,
                    "other": other.label,
                    "probability of improvement": float(statistics.probability_of_improvement(samples)),
                    **_bounds(bounds),
                }
            )
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    if not rows:
        return ""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([cell(row[head]) for head in heads] for row in rows)]
    return "\n".join(
        "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |" for line in lines
    )


def comma_separated(rows: Sequence[Row]) -> str:
    """Return rows as CSV, numbers in full."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def cell(value: Any) -> str:
    """Return a value as text for a reader."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "not reached" if np.isinf(value) else f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return str(value)


def _result(group: Group, success: bool) -> Row:
    samples = [group.finals(task) for task in group.tasks]
    bounds = statistics.interval(statistics.interquartile_mean, samples)
    row: Row = {
        "task": group.task,
        "group": group.label,
        "runs": len(group.curves),
        "final": float(statistics.interquartile_mean(samples)),
        **_bounds(bounds),
    }
    for level in LEVELS if success else ():
        steps = [statistics.steps_to(level, curve.env_steps, curve.values) for curve in group.curves]
        row[f"env steps to {level:.0%}"] = float(np.quantile(steps, 0.5, method="higher"))
        row[f"runs at {level:.0%}"] = int(np.isfinite(steps).sum())
    return row


def _bounds(bounds: statistics.Interval | None) -> Row:
    low, high = (None, None) if bounds is None else (float(bounds[0]), float(bounds[1]))
    return {"95% low": low, "95% high": high}
