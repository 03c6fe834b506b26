"""Curves over env steps, from runs and from publications, and the groups whose seeds are drawn as one line."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from errors import UsageError, nearest
from figures import statistics
from runs.reading import Row, Run

NAMES = {
    "success_rate": "success rate",
    "any_step_success_rate": "success rate at any step",
    "last_step_success_rate": "success rate at the last step",
    "env_return": "return of the environment's own reward",
    "nearest_distance": "nearest distance to success",
    "final_distance": "final distance to success",
    "temperature": "SAC temperature",
    "entropy": "entropy",
    "q_value": "Q value",
    "critic_loss": "critic loss",
    "actor_loss": "actor loss",
}

ALL_TASKS = "all tasks"
_MARKS = 200  # most points of a group's line


@dataclass(frozen=True)
class Curve:
    """What the evaluations of one run found.

    Attributes:
        task: its task.
        label: the group that it belongs to.
        env_steps: env steps (T,) at the evaluations, increasing.
        values: what was found (T,).
        rounds: env steps at which search rounds took place.
        final: the result of the run: over fresh episodes if there is one, else the last value.
        solved: whether it ended because the task was solved, so that its last value counts from there on.
    """

    task: str
    label: str
    env_steps: np.ndarray
    values: np.ndarray
    rounds: Sequence[int] = ()
    final: float = np.nan
    solved: bool = False


@dataclass(frozen=True)
class Group:
    """Curves of one label: the seeds of a task, or of all tasks."""

    task: str
    label: str
    curves: Sequence[Curve]
    published: bool = False

    @property
    def tasks(self) -> list[str]:
        """The tasks of its curves."""
        return sorted({curve.task for curve in self.curves})

    def finals(self, task: str) -> np.ndarray:
        """Return the results (runs,) on a task."""
        return np.array([curve.final for curve in self.curves if curve.task == task])

    def marks(self) -> np.ndarray:
        """Return the env steps (T,) at which its line is drawn: those of evaluations, as far as every run went."""
        last = min((curve.env_steps[-1] for curve in self.curves if not curve.solved), default=np.inf)
        first = max(curve.env_steps[0] for curve in self.curves)
        found = np.unique(np.concatenate([curve.env_steps for curve in self.curves]))
        within = found[(found >= min(first, last)) & (found <= last)]
        return within[np.unique(np.linspace(0, len(within) - 1, min(len(within), _MARKS)).astype(int))]

    def line(self) -> tuple[np.ndarray, np.ndarray, statistics.Interval | None]:
        """Return its marks (T,), the interquartile means (T,) there, and their 95% intervals if a task has two runs."""
        marks = self.marks()
        samples = [
            np.stack(
                [np.interp(marks, curve.env_steps, curve.values) for curve in self.curves if curve.task == task], -1
            )
            for task in self.tasks
        ]
        mean = statistics.interquartile_mean
        return marks, mean(samples), statistics.interval(mean, samples)


@dataclass(frozen=True)
class Comparison:
    """Groups to be compared, those of single tasks before those of all tasks."""

    groups: list[Group] = field(default_factory=list)

    @property
    def panels(self) -> list[str]:
        """The tasks, followed by all of them together."""
        return list(dict.fromkeys(group.task for group in self.groups))

    @property
    def labels(self) -> list[str]:
        """All labels, published ones last."""
        ordered = sorted(self.groups, key=lambda group: group.published)
        return list(dict.fromkeys(group.label for group in ordered))


def curve_of(run: Run, metric: str, by: Sequence[str] = ()) -> Curve | None:
    """Return the curve of a run's best agent, labelled with the flags `by`; None before its first evaluation.

    Raises:
        UsageError: there is no such flag, or the run did not measure `metric`.
    """
    rows = [row for row in run.evaluations if row.get("best")]
    if not rows:
        return None
    if metric not in rows[-1]["best"]:
        known = sorted(name for name, value in rows[-1]["best"].items() if isinstance(value, int | float))
        raise UsageError(f"{run.name} did not measure {metric}{nearest(metric, known)}; it has: {', '.join(known)}")
    rows = [row for row in rows if row["best"].get(metric) is not None]
    values = np.array([row["best"][metric] for row in rows], float)
    final = run.summary.get(f"final_{metric}")
    return Curve(
        run.task,
        _label(run, by),
        np.array([row["env_steps"] for row in rows], float),
        values,
        run.rounds(),
        float(values[-1] if final is None else final),
        run.status == "solved",
    )


def read_published(path: Path, tasks: Iterable[str], until: float = np.inf) -> list[Curve]:
    """Return published curves of `tasks`: a CSV with the columns method, task, env_steps, seed, success, and protocol.

    Raises:
        UsageError: a column is missing, or something that must be a number is not one.
    """
    wanted = set(tasks)
    points: dict[tuple[str, str, str], dict[float, float]] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets start their UTF-8 with a byte order mark
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8; save it as such") from None
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        missing = {"method", "task", "env_steps", "seed", "success"} - set(reader.fieldnames or ())
        if missing:
            raise UsageError(f"{path} has no column {', '.join(sorted(missing))}; see the docstring of plot.py")
        for row in reader:
            protocol = row.get("protocol") or "protocol not stated"
            try:
                step, success = float(row["env_steps"]), float(row["success"])
            except (TypeError, ValueError):
                raise UsageError(f"{path}, line {reader.line_num}: env_steps and success must be numbers") from None
            if row["task"] in wanted and step <= until:
                key = row["task"], f"published {row['method']} ({protocol})", row["seed"]
                points.setdefault(key, {})[step] = success
    curves = []
    for (task, label, _), found in sorted(points.items()):
        steps = np.array(sorted(found))
        values = np.array([found[step] for step in steps])
        curves.append(Curve(task, label, steps, values, final=float(values[-1])))
    return curves


def compare(curves: Sequence[Curve], published: Sequence[Curve] = ()) -> Comparison:
    """Return the curves grouped by task and label; with several tasks, also by label where one covers all tasks."""
    tasks = sorted({curve.task for curve in curves})
    groups = [*_grouped(curves, tasks), *_grouped(published, tasks, published=True)]
    if len(tasks) > 1:
        of_label = [
            Group(ALL_TASKS, label, [curve for curve in found if curve.label == label], others)
            for found, others in ((curves, False), (published, True))
            for label in sorted({curve.label for curve in found})
        ]
        groups += [group for group in of_label if group.tasks == tasks]
    return Comparison(groups)


def protocol_of(runs: Iterable[Run]) -> str:
    """Return how the runs' success was measured, in one line."""
    told = []
    for run in runs:
        rows = [row["protocol"] for row in run.evaluations if "protocol" in row]
        if rows:
            protocol: Row = rows[-1]
            rule = str(protocol.get("success", "any"))
            when = {"any": "at any step", "last": "at the last step"}.get(rule, rule)
            goal = "visible" if protocol["goal_visible"] else "hidden"
            told.append(
                f"best agent in {protocol['episodes']} episodes of {protocol['episode_length']} env steps, "
                f"solved {when}, action repeat {protocol['action_repeat']}, goal {goal}"
            )
    return "; or ".join(dict.fromkeys(told))


def _grouped(curves: Sequence[Curve], tasks: Sequence[str], published: bool = False) -> list[Group]:
    found: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        found.setdefault((curve.task, curve.label), []).append(curve)
    return [Group(task, label, found[task, label], published) for task, label in sorted(found) if task in tasks]


def _label(run: Run, by: Sequence[str]) -> str:
    if not by:
        return f"{str(run.flags['setting']).replace('_', ' ')}, {run.flags['model']}"
    return ", ".join(f"{flag} {_flag(run, flag)}" for flag in by)


def _flag(run: Run, flag: str) -> Any:
    name = flag.lstrip("-").replace("-", "_")
    if name not in run.flags:
        raise UsageError(f"--by {flag}: there is no such flag{nearest(name, list(run.flags))}")
    return run.flags[name]
